"""Ray Serve; its high-throughput mode is chosen by the environment (`RAY_SERVE_THROUGHPUT_OPTIMIZED`)."""

import signal

import ray
from function import PORT, WORKERS, predict
from ray import serve
from starlette.requests import Request

# One at a time where four single-call workers are what is measured: a router that finds its replicas full waits before
# it asks again. Elsewhere the function runs in the replica's one loop, and is one at a time there.
ONGOING_MAX = 1 if WORKERS == 4 else 100


@serve.deployment(num_replicas=WORKERS, max_ongoing_requests=ONGOING_MAX, ray_actor_options={"num_cpus": 0.1})
class Service:
    async def __call__(self, request: Request) -> dict:
        return {"response": predict(await request.json())}


if __name__ == "__main__":
    ray.init(include_dashboard=False, num_cpus=8, configure_logging=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    serve.run(Service.bind(), route_prefix="/predict")
    signal.sigwait([signal.SIGTERM, signal.SIGINT])
    serve.shutdown()
    ray.shutdown()
