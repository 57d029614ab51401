"""deploy: the champion answers through a real server."""

from __future__ import annotations

import json

from prefect import task

from tasks import policy
from tasks.shell import Job, Reference, Scope, Summary, perform


@task(**policy.options("deploy"))
def deploy(job: Job, version: Reference) -> Reference:
    """Fetch `@champion` from the registry, serve it, and ask it one question."""

    def work(step: Scope) -> Summary:
        from infra import registry
        from serving import smoke

        name = job.recipe.name
        if version["summary"]["alias"] != "champion":
            return {"served": False, "reason": version["summary"]["note"]}
        champion = registry.resolve(job.settings, f"{name}@champion")
        bundle = registry.fetch(job.settings, champion, step.work / "bundle")
        example = json.loads((bundle / "manifest.json").read_text())["example_prompt"]
        prompt = job.recipe.deploy.smoke_prompt or example
        with smoke.start({name: bundle}, log=step.work / "server.log") as server:
            answer = smoke.smoke(server.url, name, version["summary"]["kind"], prompt)
        return {"served": True, "command": f"flywheel serve {name}@champion", "version": champion.version, **answer}

    return perform(job, work)
