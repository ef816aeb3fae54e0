"""Many scenes played at once, on all workers: each has its own payment, and only the claims are counted together."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Callable

from e2e.wire import eventually

from .play import Row, Scene
from .stage import Flow, Stage

Case = tuple[Row, Flow, str]


class Cast:
    """The scenes of a run, and what came of each."""

    def __init__(self, stage: Stage, cases: list[Case], together: int) -> None:
        self._stage = stage
        self._failed: dict[tuple[str, str, str], BaseException] = {}
        self._miscounted: BaseException | None = None
        self._before = stage.claims()
        stage.bank.provide(len(cases))
        with ThreadPoolExecutor(together) as pool:
            self._scenes = list(pool.map(lambda case: Scene(stage, *case), cases))
            self._all(pool, Scene.first)
            self._count(0)
            self._all(pool, Scene.resend)
            self._count(1)
            # What was let go late does nothing any more.
            self._all(pool, Scene.check)

    def _all(self, pool: ThreadPoolExecutor, act: Callable[[Scene], None]) -> None:
        def one(scene: Scene) -> None:
            if _name(scene) in self._failed:
                return
            try:
                act(scene)
            except BaseException as problem:
                self._failed[_name(scene)] = problem
                scene.let_go()

        list(pool.map(one, self._scenes))

    def _count(self, when: int) -> None:
        wanted = self._before + sum(scene.claims[when] for scene in self._scenes)
        try:
            eventually(lambda: self._stage.claims() == wanted, f"{wanted} claims, not {self._stage.claims()}")
        except BaseException as problem:
            self._miscounted = self._miscounted or problem

    def ended_well(self, row: Row, flow: Flow, protocol: str) -> None:
        """Whatever went wrong with a scene goes wrong now."""
        problem = self._failed.get((row.name, flow.name, protocol))
        if problem is not None:
            raise problem

    def counted(self) -> None:
        """The claims were as many as the rows say, before and after the payments were sent again."""
        if self._miscounted is not None:
            raise self._miscounted


def _name(scene: Scene) -> tuple[str, str, str]:
    return scene.row.name, scene.flow.name, scene.protocol
