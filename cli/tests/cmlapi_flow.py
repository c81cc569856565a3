"""The way of an existing program, by the client that the server hands out. Arguments: address, API key."""

import json
import sys
import time
import urllib.request

import cmlapi
from cmlapi.rest import ApiException
from cmlapi.utils import Cursor

url, api_key = sys.argv[1:]
client = cmlapi.default_client(url=url, cml_api_key=api_key)
calls = 0


def called(value):
    """Count an answer that came as it should."""
    global calls
    calls += 1
    return value


def poll(get, words):
    """Ask until the status is one of these words."""
    for _ in range(1200):
        found = called(get())
        if found.status in words:
            return found
        time.sleep(0.1)
    raise SystemExit(f"still {found.status}: {found}")


def refused(status, work):
    """Expect a refusal."""
    try:
        work()
    except ApiException as error:
        assert error.status == status, error
        assert error.status and json.loads(error.body)["message"], error
        return called(json.loads(error.body)["message"])
    raise SystemExit(f"not refused with {status}")


def predict(access_key, request):
    """Call the model as an app does."""
    body = json.dumps({"accessKey": access_key, "request": request}).encode()
    headers = {"Authorization": f"Bearer {api_key}", "Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(f"{url}/model", body, headers)) as answer:
        return called(json.load(answer))["response"]


project = called(client.create_project(cmlapi.CreateProjectRequest(name="flow", template="blank")))
called(client.upload_project_files({"add.py": b"def add(args):\n    return args['a'] + args['b']\n"}, project.id))
assert called(client.download_project_file(project.id, "add.py")).startswith(b"def add")
model_request = cmlapi.CreateModelRequest(project_id=project.id, name="add", description="a sum")
model = called(client.create_model(model_request, project.id))
assert model.creator.username == "admin" and model.created_at.tzinfo is not None, model
assert "already has a model with that name" in refused(409, lambda: client.create_model(model_request, project.id))
build_request = cmlapi.CreateModelBuildRequest(
    project_id=project.id, model_id=model.id, file_path="add.py", function_name="add", kernel="python3"
)
build = called(client.create_model_build(build_request, project.id, model.id))
deployment_request = cmlapi.CreateModelDeploymentRequest(
    project_id=project.id, model_id=model.id, build_id=build.id, cpu="1", memory=1, replicas=1, environment={"A": "1"}
)
# At once: it waits for its build.
deployment = called(client.create_model_deployment(deployment_request, project.id, model.id, build.id))
ids = (project.id, model.id, build.id)
build = poll(lambda: client.get_model_build(*ids), ("built", "build failed"))
assert build.status == "built", build.failure_reason
deployment = poll(lambda: client.get_model_deployment(*ids, deployment.id), ("deployed", "failed", "stopped"))
assert deployment.status == "deployed" and json.loads(deployment.environment) == {"A": "1"}, deployment
assert predict(model.access_key, {"a": 3, "b": 5}) == 8
called(client.stop_model_deployment(*ids, deployment.id))
poll(lambda: client.get_model_deployment(*ids, deployment.id), ("stopped",))
called(client.restart_model_deployment(*ids, deployment.id))
poll(lambda: client.get_model_deployment(*ids, deployment.id), ("deployed",))
assert predict(model.access_key, {"a": 1, "b": 1}) == 2

pending = [client.create_model({"name": f"m{n}"}, project.id, async_req=True) for n in range(12)]
assert sorted(called(made.get(60)).name for made in pending) == sorted(f"m{n}" for n in range(12))
page = called(client.list_models(project.id, page_size=5))
assert len(page.models) == 5 and page.next_page_token, page
rest = called(client.list_models(project.id, page_size=50, page_token=""))
assert [m.id for m in rest.models][:5] == [m.id for m in page.models] and rest.next_page_token == ""
some = called(client.list_models(project.id, search_filter=json.dumps({"name": "m1"}), sort="-name"))
assert [m.name for m in some.models] == ["m11", "m10", "m1"], some
everything = Cursor(client.list_models, project.id, page_size=4).items()
assert len([called(m) for m in everything]) == 13
changed = called(client.get_model(project.id, "".join(model.id)))
changed.description = "another"
assert called(client.update_model(changed, project.id, model.id)).description == "another"
_, status, headers = called(client.list_projects_with_http_info(_request_timeout=30))
assert status == 200 and any(name.lower() == "content-type" for name in headers), headers
raw = called(client.list_projects(_preload_content=False))
assert json.loads(raw.data)["projects"][0]["name"] == "flow"
assert called(client.list_runtimes()).runtimes[0].to_dict()["editor"] == "Workbench"
key = called(client.create_v2_key(cmlapi.CreateV2KeyRequest(comments="one"), "admin"))
called(client.delete_v2_key("admin", key.key_id))
assert "`cpu`" in refused(400, lambda: client.create_model_deployment({"cpu": "many"}, *ids))
refused(404, lambda: client.get_project("aaaa-bbbb-cccc-dddd"))
refused(401, lambda: cmlapi.default_client(url, "wrong").list_projects())
called(client.stop_model_deployment(*ids, deployment.id))
poll(lambda: client.get_model_deployment(*ids, deployment.id), ("stopped",))
called(client.delete_model(project.id, model.id))
refused(404, lambda: client.get_model(project.id, model.id))
called(client.delete_project(project.id))
refused(404, lambda: client.get_project(project.id))
print(f"{calls} of {calls} calls")
