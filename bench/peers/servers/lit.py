"""LitServe, with as many HTTP servers as workers and its fast queue."""

import litserve
from function import PORT, WORKERS, predict


class Api(litserve.LitAPI):
    def setup(self, device):
        pass

    def predict(self, args):
        return {"response": predict(args)}


if __name__ == "__main__":
    server = litserve.LitServer(Api(), accelerator="cpu", workers_per_device=WORKERS, fast_queue=True, timeout=60)
    server.run(host="127.0.0.1", port=PORT, num_api_servers=2, generate_client_file=False, log_level="warning")
