"""BentoML."""

import bentoml
from function import WORKERS, predict


@bentoml.service(workers=WORKERS, threads=1, traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class Service:
    @bentoml.api
    def predict(self, args: dict) -> dict:
        return {"response": predict(args)}
