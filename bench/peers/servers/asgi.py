"""FastAPI, for uvicorn and granian. The function runs on the event loop: one call at a time in each worker."""

from fastapi import Body, FastAPI
from function import predict

app = FastAPI()


@app.post("/predict")
async def answer(args: dict = Body()):  # noqa: B008
    return {"response": predict(args)}
