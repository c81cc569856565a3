"""MLServer: a runtime of our own. Floats come as a tensor, other arguments as JSON in a text."""

import json

from function import predict
from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput


class Model(MLModel):
    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        given = payload.inputs[0]
        is_tensor = given.datatype == "FP64"
        args = {"values": given.data} if is_tensor else json.loads(StringCodec.decode_input(given)[0])
        output = ResponseOutput(name="response", shape=[1], datatype="FP64", data=[predict(args)])
        return InferenceResponse(model_name=self.name, outputs=[output])
