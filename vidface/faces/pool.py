"""The supervisor of decoding processes: gives out clips, collects faces, replaces what dies.

It runs in a thread of its own, so that a hung or greedy worker is seen to while the reader embeds,
and hands events over through a queue of bounded size.
"""

from __future__ import annotations

import contextlib
import pickle
import selectors
import socket
import threading
import time
from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from vidface.backbones.preprocessing import USUAL, Preprocessing
from vidface.backbones.weights import weights_path
from vidface.core.children import open_nameless_file
from vidface.core.clips import Clip, FileState
from vidface.core.errors import VidfaceError
from vidface.core.rules import NEW_RULES, ReadingRules
from vidface.faces.clip_faces import ClipWork, find_faces, make_one_line
from vidface.faces.events import ClipEnd, ClipLimits, Event, FoundFaces
from vidface.faces.processes import DecodingProcess
from vidface.faces.queues import ClipQueue, EventQueue
from vidface.faces.settings import FaceSettings
from vidface.faces.worker import WorkerSetup
from vidface.frames.settings import FrameSettings
from vidface.storage.media import MediaRoot

AHEAD = 256

_LOOK_SECONDS = 0.1  # between two looks at the workers
_LOOK_AT_MEMORY_SECONDS = 0.5
_LONGEST_STEP_SECONDS = 2.0  # more than that passed: this process slept too (Ctrl-Z, suspended)
_QUEUED_SECONDS = 0.2  # of work, that a worker has waiting for it …
_QUEUED_CLIPS = 7  # … in at most so many clips
_FAILED_STARTS = 3  # one after the other: no worker can start


def decode_clips(
    clips: Iterable[Clip],
    root: MediaRoot,
    frames: FrameSettings,
    faces: FaceSettings,
    *,
    workers: int,
    limits: ClipLimits | None = None,
    detector_model: Path | None = None,
    ahead: int = AHEAD,
    work: ClipWork = find_faces,
    rules: ReadingRules = NEW_RULES,
    fed: Preprocessing = USUAL,
) -> Generator[Event]:
    """Find the faces of clips in worker processes; whatever a clip does costs that clip alone.

    Several clips' events come mixed. Workers wait while the reader does: memory depends on neither
    the number of clips nor their length. Closing the generator ends the workers at once.

    Args:
        clips: iterated as needed, in another thread; it should not block.
        root: where the clips lie; sent to every worker once, pickled.
        workers: processes, ≥ 1.
        limits: default `ClipLimits()`.
        detector_model: the detector's file; None: the weights that `faces.detector` names, fetched
            on first use. Not used with aligned crops.
        ahead: clips that may be given out beyond the oldest one that has not ended, ≥ 1.
        work: what a worker does with a clip; a function that it can import.
        rules: of the run that the clips are read for.
        fed: what faces are cut out for: their template and size.

    Yields:
        `FoundFaces` as they are found, and one `ClipEnd` a clip, after its faces.

    Raises:
        VidfaceError: at the call for impossible arguments; later if workers can't be started, or
            for what concerns every clip (a decoder that isn't installed, no more open files).
    """
    for name, value in (("workers", workers), ("ahead", ahead)):
        if value < 1:
            raise VidfaceError(f"decode_clips: {name} must be at least 1, not {value}")
    if faces.source not in ("detect", "aligned"):
        raise VidfaceError(f'decode_clips: [faces] source = "{faces.source}" has no pictures')
    if detector_model is None and faces.source == "detect":
        detector_model = weights_path(faces.detector)
    limits = limits or ClipLimits()
    setup = WorkerSetup(work, root, frames, faces, limits, detector_model, rules, fed)
    try:
        content = pickle.dumps(setup, protocol=pickle.HIGHEST_PROTOCOL)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise VidfaceError(
            f"decode_clips: root or work can't be sent to another process ({error})"
        ) from None
    return _Supervisor(iter(clips), content, limits, fed.shape, workers, ahead).run()


class _Supervisor:
    def __init__(
        self,
        clips: Iterator[Clip],
        setup: bytes,
        limits: ClipLimits,
        crop_shape: tuple[int, int, int],
        workers: int,
        ahead: int,
    ) -> None:
        self._clips = ClipQueue(clips, ahead)
        self._setup = setup
        self._limits, self._crop_shape = limits, crop_shape
        self._workers = workers
        self._processes: list[DecodingProcess] = []
        self._owed_slots: dict[DecodingProcess, list[int]] = {}  # slots, while the reader is behind
        self._failed_starts = 0
        self._mean_seconds: float | None = None  # a clip, of late
        self._stopped = False
        self._selector = selectors.DefaultSelector()

    def run(self) -> Generator[Event]:
        """The events. Closing it ends all workers, and returns once they are gone."""
        self._woken, wake = socket.socketpair()
        with self._woken, wake:
            for end in (self._woken, wake):
                end.setblocking(False)
            self._events = EventQueue(wake)
            # A daemon: a reader that forgets to close must not keep the program from ending.
            thread = threading.Thread(target=self._supervise, name="decoding", daemon=True)
            try:
                thread.start()
                while (event := self._events.take()) is not None:
                    yield event
            finally:
                self._stopped = True
                with contextlib.suppress(OSError):
                    wake.send(b"!")
                if thread.ident is not None:
                    thread.join()

    def _supervise(self) -> None:
        error: BaseException | None = None
        try:
            with open_nameless_file(self._setup) as setup_descriptor:
                self._selector.register(self._woken, selectors.EVENT_READ)
                self._watch_and_serve(setup_descriptor)
        except BaseException as caught:
            error = caught
        finally:
            for process in self._processes:
                process.process.kill()  # all at once, then wait for each
            for process in self._processes:
                process.close()
            self._selector.close()
            self._events.put(error)

    def _watch_and_serve(self, setup_descriptor: int) -> None:
        looked = looked_at_memory = time.monotonic()
        while not self._stopped:
            self._give_out(setup_descriptor)
            if self._clips.all_ended:
                return
            for key, ready_for in self._selector.select(_LOOK_SECONDS):
                if key.data is None:
                    with contextlib.suppress(OSError):
                        self._woken.recv(4096)
                    self._return_owed_slots()
                else:
                    self._serve(key.data, ready_for)
            now = time.monotonic()
            if now - looked >= _LOOK_SECONDS:
                at_memory = now - looked_at_memory >= _LOOK_AT_MEMORY_SECONDS
                self._watch_workers(min(now - looked, _LONGEST_STEP_SECONDS), at_memory)
                looked = now
                looked_at_memory = now if at_memory else looked_at_memory

    # Giving.

    def _give_out(self, setup_descriptor: int) -> None:
        if self._events.is_full:
            return
        depth = 1  # so that a worker doesn't wait for the next of very short clips
        if self._mean_seconds is not None:
            depth += min(_QUEUED_CLIPS, int(_QUEUED_SECONDS / max(self._mean_seconds, 1e-6)))
        ready = [p for p in self._processes if p.ready and not p.retired]
        starting = sum(not p.ready for p in self._processes)
        wanted = sum(max(0, depth - len(p.assigned)) for p in ready)
        self._clips.fill(wanted + starting + self._workers - len(self._processes))
        for level in range(depth):  # evenly
            for process in ready:
                if len(process.assigned) == level and self._clips:
                    process.give(*self._clips.pop())
                    self._register(process)
        while len(self._processes) < self._workers and len(self._clips) > starting:
            process = DecodingProcess(setup_descriptor, self._limits, self._crop_shape)
            self._processes.append(process)
            self._selector.register(process.channel.socket, selectors.EVENT_READ, process)
            starting += 1

    def _register(self, process: DecodingProcess) -> None:
        """Be told when it can be written to, as long as there is something to write."""
        events = selectors.EVENT_READ
        if process.channel.has_unsent:
            events |= selectors.EVENT_WRITE
        if self._selector.get_key(process.channel.socket).events != events:
            self._selector.modify(process.channel.socket, events, process)

    def _return_owed_slots(self) -> None:
        if not self._events.is_full:
            for process, slots in self._owed_slots.items():
                process.return_slots(slots)
                self._register(process)
            self._owed_slots = {}

    # Taking.

    def _serve(self, process: DecodingProcess, ready_for: int) -> None:
        if process not in self._processes:  # removed in this round
            return
        if ready_for & selectors.EVENT_WRITE:
            process.channel.flush()
        if self._read(process):
            self._register(process)
        else:
            process.wait()
            self._remove(process)

    def _read(self, process: DecodingProcess) -> bool:
        """Take what it has sent; False if it has ended, or no longer makes sense."""
        try:
            for message in process.channel.messages():
                self._receive(process, message)
        except EOFError:
            return False
        except ValueError:
            process.record_verdict("crashed", "its decoding process sends nonsense")
            return False
        return True

    def _receive(self, process: DecodingProcess, message: Any) -> None:
        try:
            event = self._interpret(process, *message)
        except _FatalError as error:
            raise VidfaceError(str(error)) from None
        except Exception as error:  # its memory is damaged
            why = f"its decoding process sends nonsense ({type(error).__name__})"
            process.record_verdict("crashed", why)
            raise EOFError from None
        if event is not None:
            self._events.put(event)
            if isinstance(event, ClipEnd):
                self._clips.end(event.clip_number)
                self._failed_starts = 0

    def _interpret(self, process: DecodingProcess, kind: str, *content: Any) -> Event | None:
        if kind == "faces":
            number, slots, faces = content
            if number not in process.assigned:
                raise ValueError("faces of a clip that it doesn't have")
            found_faces = FoundFaces(number, faces, process.block.crops[slots])
            if self._events.is_full:
                self._owed_slots.setdefault(process, []).extend(slots)
            else:
                process.return_slots(slots)
            return found_faces
        if kind == "end":
            end = replace(content[0])  # checks itself once more
            del process.assigned[end.clip_number]
            self._note_seconds(end.seconds.total)
            return end
        if kind == "out_of_memory":
            number, size = content
            message = f"{process.assigned[number].path}: {process.out_of_memory()}"
            end = ClipEnd(number, "crashed", make_one_line(message), file=FileState(size))
            del process.assigned[number]
            return end
        if kind == "ready":
            process.note_ready()
        elif kind == "retire":
            process.retired = True
        elif kind == "fatal":
            raise _FatalError(content[0])
        else:
            raise ValueError("unknown kind")
        return None

    def _note_seconds(self, seconds: float) -> None:
        mean = self._mean_seconds
        self._mean_seconds = seconds if mean is None else 0.8 * mean + 0.2 * seconds

    # Watching.

    def _watch_workers(self, seconds: float, at_memory: bool) -> None:
        for process in list(self._processes):
            if (verdict := process.watch(seconds)) is None and at_memory:
                verdict = process.watch_memory()
            if verdict is not None:
                process.record_verdict(*verdict)
                self._remove(process)

    def _remove(self, process: DecodingProcess) -> None:
        """Take an ended process out, or end it; its clip is lost, those behind go to others."""
        process.kill()
        self._read(process)  # what it had sent before
        self._selector.unregister(process.channel.socket)
        self._processes.remove(process)
        self._owed_slots.pop(process, None)
        lost_number = process.lost_clip()
        if lost_number is not None:
            clip = process.assigned.pop(lost_number)
            state, message = process.why_ended()
            message = make_one_line(f"{clip.path}: {message}")
            size = process.block.clip_bytes
            self._events.put(ClipEnd(lost_number, state, message, file=FileState(size)))
            self._clips.end(lost_number)
            self._failed_starts = 0
        elif not process.retired:
            self._failed_starts += 1
        process.close()
        self._clips.put_back(process.assigned)
        if self._failed_starts >= _FAILED_STARTS:
            _, message = process.why_ended()
            raise VidfaceError(
                f"decoding processes end before they have begun a clip ({message}); what they "
                "printed may say why"
            )


class _FatalError(Exception):
    """A worker's word that the run can't go on."""
