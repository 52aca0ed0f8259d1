"""What one attempt starts on each node: decided by the plan, printed by `plan`, sent to the agents, run by them.

`LaunchSpec` is the part of a plan that does not change between attempts; `LaunchSpec.node_specs` turns it into one
`NodeSpec` per node for a given attempt and port. Both are plain data that survives JSON. No value of a secret is ever
in them: secrets are named, and each agent takes their values from its own environment.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from cluster.inventory import NodeShape
from launcher.restart_policy import RestartPolicy

__all__ = ["ATTEMPT_VARIABLE", "Bounds", "LaunchSpec", "NodeShape", "NodeSpec"]

ATTEMPT_VARIABLE = "BERT4DOC_ATTEMPT"
"""Environment variable that marks every process of an attempt: `<run id>/<attempt>/<node>`."""

SHIM = "launcher/shim.py"
WORKER_MODULE = "trainers.worker"


@dataclass(frozen=True)
class Bounds:
    """How long things may take, in seconds; `plan` prints them."""

    startup_timeout_s: float = 600.0
    """From the start of the ranks to the first step of the first stage, on every rank."""
    stop_grace_s: float = 60.0
    """After a stop request: time to reach the next step and write a checkpoint."""
    kill_grace_s: float = 2.0
    """Between SIGTERM and SIGKILL when a failed attempt is cleaned up."""
    peer_grace_s: float = 2.0
    """After the first failure: time for the other ranks to say what happened to them before they are stopped."""
    early_exit_s: float = 10.0
    """A rank that ends with 0 before it has reported its last phase, `done`, is called an early exit when others
    still run after this time."""
    phases: Mapping[str, float] = field(default_factory=dict)
    """Most seconds without a sign of progress, by the phase that a rank is in; a phase that is not named has no
    bound."""


@dataclass(frozen=True)
class NodeSpec:
    """Everything an agent needs to run its node's part of one attempt."""

    root: str
    run_dir: str
    run_id: str
    attempt: int
    node: int
    nnodes: int
    nproc: int
    first_rank: int
    host: str
    start_port: int
    port_fixed: bool
    argv: tuple[str, ...]
    """The exact `paddle.distributed.launch` command."""
    env: Mapping[str, str]
    """The whole environment of the ranks and of Paddle's launcher."""
    prepare_argv: tuple[str, ...] = ()
    """Command that runs to its end before the ranks; empty: nothing."""
    prepare_env_names: tuple[str, ...] = ()
    """Variables (proxies, tokens for downloads) that the agent passes from its own environment to the prepare command
    alone."""
    bounds: Bounds = field(default_factory=Bounds)

    @property
    def marker(self) -> str:
        """Value of BERT4DOC_ATTEMPT in every process of this node's attempt."""
        return f"{self.run_id}/{self.attempt:03d}/{self.node}"

    @property
    def ranks(self) -> range:
        """Global ranks on this node."""
        return range(self.first_rank, self.first_rank + self.nproc)

    def to_json(self) -> str:
        """One line of JSON that `from_json` turns back into an equal object."""
        return json.dumps(asdict(self), separators=(",", ":"), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> NodeSpec:
        """Reads `to_json`'s line. Raises ValueError, TypeError or KeyError on anything else."""
        data: dict[str, Any] = json.loads(text)
        data["bounds"] = Bounds(**data["bounds"])
        for key in ("argv", "prepare_argv", "prepare_env_names"):
            data[key] = tuple(data[key])
        return cls(**data)


@dataclass(frozen=True)
class LaunchSpec:
    """The launch part of a plan: the same for every attempt of a run."""

    root: str
    """Root of the source tree: working directory and PYTHONPATH of every process."""
    python: str
    """Interpreter of the ranks, absolute."""
    run_dir: str
    """Run directory, absolute."""
    nodes: tuple[NodeShape, ...]
    worker_args: tuple[str, ...]
    """Arguments of the worker beside --run-dir, --attempt-dir, --node, --stages and --resume-from."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Environment of the ranks (launcher/environment_vars.py), without the attempt's marker."""
    worker: str = WORKER_MODULE
    """What a rank runs: a module name, or a file that ends in .py."""
    prepare_argv: tuple[str, ...] = ()
    prepare_env_names: tuple[str, ...] = ()
    start_port: int = 0
    """First port of the endpoints, one port per rank of a node. 0: chosen free at the start."""
    port_fixed: bool = False
    """The user chose the port: if it is taken, say so instead of taking another."""
    bounds: Bounds = field(default_factory=Bounds)
    stages: tuple[str, ...] = ()
    """The stages still to run, in order: --stages of the worker."""
    resume_from: str = ""
    """The checkpoint directory to start from: --resume-from of the worker. Empty: the newest intact one."""
    had_stages: bool = False
    """`stages` has been shortened by `continued`."""
    restart: RestartPolicy = field(default_factory=RestartPolicy)
    time_limit_s: float | None = None
    """A stop is asked for in time to have ended after this."""

    @property
    def world_size(self) -> int:
        """Ranks over all nodes."""
        return sum(shape.nproc for shape in self.nodes)

    def with_port(self, start_port: int) -> LaunchSpec:
        """The same launch at other endpoints."""
        return replace(self, start_port=start_port)

    def continued(self, finished: Collection[str], saved: str) -> LaunchSpec:
        """The launch of the attempt after a failed one: without the stages finished meanwhile, and if it was to start from
        a certain checkpoint, from the one saved since (`saved`, empty if none), for there may be others that are newer."""
        stages = tuple(stage for stage in self.stages if stage not in finished)
        return replace(
            self,
            stages=stages,
            resume_from=(saved or self.resume_from) if self.resume_from else "",
            had_stages=self.had_stages or bool(self.stages),
        )

    @property
    def is_complete(self) -> bool:
        """Every stage that this launch was for is finished."""
        return self.had_stages and not self.stages

    def node_specs(self, attempt: int, run_id: str = "RUN_ID") -> tuple[NodeSpec, ...]:
        """One spec per node, in rank order."""
        specs, first_rank = [], 0
        for node, shape in enumerate(self.nodes):
            specs.append(self._node_spec(node, shape, first_rank, attempt, run_id))
            first_rank += shape.nproc
        return tuple(specs)

    def _node_spec(self, node: int, shape: NodeShape, first_rank: int, attempt: int, run_id: str) -> NodeSpec:
        env = {**self.env, ATTEMPT_VARIABLE: f"{run_id}/{attempt:03d}/{node}"}
        if shape.interface:
            env |= {"GLOO_SOCKET_IFNAME": shape.interface, "NCCL_SOCKET_IFNAME": shape.interface}
        return NodeSpec(
            root=self.root,
            run_dir=self.run_dir,
            run_id=run_id,
            attempt=attempt,
            node=node,
            nnodes=len(self.nodes),
            nproc=shape.nproc,
            first_rank=first_rank,
            host=shape.host,
            start_port=self.start_port,
            port_fixed=self.port_fixed,
            argv=self._argv(node, shape, attempt),
            env=env,
            prepare_argv=self.prepare_argv,
            prepare_env_names=self.prepare_env_names,
            bounds=self.bounds,
        )

    def _argv(self, node: int, shape: NodeShape, attempt: int) -> tuple[str, ...]:
        """Explicit endpoints (--ips, --start_port, --host): Paddle then opens no key-value store and needs no DNS."""
        attempt_dir = f"{self.run_dir}/attempts/{attempt:03d}"
        devices = ("--devices", ",".join(shape.devices)) if shape.devices else ()
        return (
            *(self.python, "-m", "paddle.distributed.launch"),
            *("--ips", ",".join(other.host for other in self.nodes)),
            *("--start_port", str(self.start_port), "--host", shape.host),
            *("--nproc_per_node", str(shape.nproc)),
            *devices,
            *("--log_dir", f"{attempt_dir}/node-{node}/paddle"),
            f"{self.root}/{SHIM}",
            self.worker,
            *("--run-dir", self.run_dir, "--attempt-dir", attempt_dir, "--node", str(node)),
            *(("--stages", ",".join(self.stages)) if self.stages else ()),
            *(("--resume-from", self.resume_from) if self.resume_from else ()),
            *self.worker_args,
        )
