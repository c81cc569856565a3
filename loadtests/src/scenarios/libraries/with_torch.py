"""A small network that was initialised by the build and is only loaded here."""

import numpy
import torch

with numpy.load("expected.npz") as stored:
    rows, expected = torch.from_numpy(stored["rows"]), stored["expected"]
model = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 3))
model.load_state_dict(torch.load("weights.pt"))
model.eval()


def predict(args):
    if args.get("draw"):
        return torch.rand(1).item()
    with torch.no_grad():
        numpy.testing.assert_allclose(model(rows).numpy(), expected, rtol=1e-4, atol=1e-6)
    return args["n"]
