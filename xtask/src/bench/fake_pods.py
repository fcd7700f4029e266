"""Fills the API with pods of nodes that nobody runs, each with the status that a kubelet writes.

usage: fake_pods.py SERVER TOKEN NODES PODS
"""
import asyncio, sys
import aiohttp

server, token, nodes, pods = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
WRITERS = 32


def pod(index):
    labels = {"app": f"web-{index % 100}", "pod-template-hash": "5d8c7b9f4", "tier": "front"}
    probe = {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 10}
    container = {
        "name": "web", "image": "registry.example.com/team/web:1.4.2", "ports": [{"name": "http", "containerPort": 8080}],
        "env": [{"name": f"SETTING_{n}", "value": f"value of setting {n}"} for n in range(6)],
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
        "readinessProbe": probe, "livenessProbe": probe,
        "volumeMounts": [{"name": "settings", "mountPath": "/etc/settings", "readOnly": True}],
    }
    spec = {"nodeName": f"fake-{index % nodes}", "containers": [container],
            "volumes": [{"name": "settings", "configMap": {"name": "settings"}}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"web-{index}", "labels": labels}, "spec": spec}


def status(index):
    now, ip = "2026-01-01T00:00:00Z", f"10.42.{index // 250 % 250}.{index % 250 + 1}"
    names = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"]
    conditions = [{"type": name, "status": "True", "lastTransitionTime": now} for name in names]
    container = {
        "name": "web", "ready": True, "started": True, "restartCount": 0, "image": "registry.example.com/team/web:1.4.2",
        "imageID": "registry.example.com/team/web@sha256:" + "0123456789abcdef" * 4, "state": {"running": {"startedAt": now}},
        "containerID": f"containerd://{index:064x}",
    }
    return {"status": {"phase": "Running", "hostIP": "10.0.0.1", "podIP": ip, "podIPs": [{"ip": ip}], "startTime": now,
                       "qosClass": "Burstable", "conditions": conditions, "containerStatuses": [container]}}


async def main():
    headers = {"Authorization": f"Bearer {token}"}
    connector = aiohttp.TCPConnector(ssl=False, limit=WRITERS)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        async def write(method, path, body, kind="application/json"):
            async with session.request(method, server + path, json=body, headers={"Content-Type": kind}) as answer:
                if answer.status not in (200, 201):
                    raise SystemExit(f"{method} {path}: {answer.status} {await answer.text()}")

        for index in range(nodes):
            node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": f"fake-{index}"}}
            await write("POST", "/api/v1/nodes", node)
        indexes = iter(range(pods))

        async def writer():
            for index in indexes:
                await write("POST", "/api/v1/namespaces/default/pods", pod(index))
                path = f"/api/v1/namespaces/default/pods/web-{index}/status"
                await write("PATCH", path, status(index), "application/merge-patch+json")

        await asyncio.gather(*[writer() for _ in range(WRITERS)])


asyncio.run(main())
