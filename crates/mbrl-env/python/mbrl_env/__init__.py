"""Serves a Python environment to mbrl over standard input and output.

    from mbrl_env import serve
    serve(gymnasium.make("Pendulum-v1"))

The protocol is described in docs/process-protocol.md of mbrl's repository. This file needs nothing but Python 3.8; it uses NumPy
where it is installed.
"""

import inspect
import json
import math
import os
import random
import select
import struct
import sys
import time
import traceback
from array import array

try:
    import numpy as np
except ImportError:
    np = None

__all__ = ["field", "serve", "main"]
__version__ = "0.1.0"

PROTOCOL = 1
# Comes before the first frame: what the program printed until then is none of it.
MAGIC = b"\x89mbrl-env\r\n"
HELLO, RESET, STEP, CLOSE = 1, 2, 3, 4
SPEC, OBSERVATION, TRANSITION, ERROR = 17, 18, 19, 20
_HEAD = struct.Struct("<IB")
_TRANSITION = struct.Struct("<IBBdI")
_COUNTS = struct.Struct("<II")
# How long (s) the next question is waited for awake. A core that sleeps takes some 40 us to wake, more than most steps take.
_AWAKE = 100e-6
_F4, _F8 = (None, None) if np is None else (np.dtype("<f4"), np.dtype("<f8"))


def _cores():
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def field(name, unit="", *, angle=False, turn=None, wraps=False, flag=False, shape=()):
    """A named part of an observation or an action.

    `angle`: it can turn all the way round, so that one more turn is the same state; models see its sine and cosine. `turn` is one
    turn in its unit (2 pi, or 360 where the unit is "deg"); `wraps` says that the value jumps by a turn. `flag`: 0 or 1. `shape`: for
    a field of several columns.
    """
    kind = "flag" if flag else "angle" if angle or wraps or turn is not None else "linear"
    told = {"name": str(name), "unit": unit, "shape": [int(n) for n in shape], "kind": kind}
    if kind == "angle":
        told["unit"] = unit or "rad"
        told["turn"] = float(turn if turn is not None else 360.0 if unit == "deg" else 2.0 * math.pi)
        told["wraps"] = bool(wraps)
    return told


def serve(
    env,
    *,
    name=None,
    fields=None,
    action_fields=None,
    action_low=None,
    action_high=None,
    actions=None,
    control_period=None,
    max_steps=None,
):
    """Serves an environment until mbrl lets go of it. Does not return before.

    `env` is an environment with Gymnasium's interface, or any object with `reset` and `step`, or a class or function that makes
    one. `reset(seed=...)` or `reset()` returns an observation, alone or with a dict of infos; `step(action)` returns
    `(observation, reward, terminated, truncated, info)`, `(observation, reward, terminated, info)` or
    `(observation, reward, terminated)`. An observation is a number or a sequence of numbers. Numbers in `info` are recorded.

    What cannot be read from `observation_space` and `action_space` is told here or by attributes of the same names:

    name            what messages and run folders call it
    fields          the columns of an observation: names, or `field(...)`s; a number where they have no names
    action_fields   the same for actions
    action_low, action_high   bounds of the actions, a number or one per column
    actions         for discrete actions: how many there are
    control_period  time of a step (s)
    max_steps       steps after which an episode is cut; mbrl cuts it
    """
    channel = _Channel()
    with channel.telling():
        if inspect.isclass(env) or (callable(env) and not hasattr(env, "step")):
            env = env()
        told = {
            "name": name,
            "fields": fields,
            "action_fields": action_fields,
            "action_low": action_low,
            "action_high": action_high,
            "actions": actions,
            "control_period": control_period,
            "max_steps": max_steps,
        }
        # An attribute counts where it can mean nothing else: environments with spaces have lists called `actions` of their own.
        own = {"name": str, "control_period": (int, float), "max_steps": int}
        for key, value in told.items():
            spaced = hasattr(env, "observation_space" if key == "fields" else "action_space")
            attribute = getattr(env, key, None)
            if value is None and (isinstance(attribute, own[key]) if key in own else not spaced):
                told[key] = attribute
        server = _Server(env, told)
        channel.greet(server.spec)
    server.run(channel)


class _Channel:
    """The frames: standard input and output, taken away from everything else in this process."""

    def __init__(self):
        if os.isatty(0) or os.isatty(1):
            sys.exit("mbrl starts this program and talks to it; it is of no use in a terminal (see mbrl_env's README)")
        self.input = os.dup(0)
        self.output = os.dup(1)
        # From here on what is printed goes to standard error, by Python and by C alike, and nobody reads the frames.
        os.dup2(2, 1)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        try:
            sys.stdout.flush()
            sys.stdout.reconfigure(line_buffering=True)
        except (AttributeError, ValueError):
            pass
        self.begun = False
        self.buffer = b""
        self.ready = select.poll()
        self.ready.register(self.input, select.POLLIN)
        # With one core, being awake keeps mbrl from asking.
        self.awake = _AWAKE if _cores() > 1 else 0.0

    def read_some(self, count):
        """What has come, at most `count` bytes; waits for it, the first moment awake: waking a core takes longer than most steps."""
        if self.awake:
            ready, clock = self.ready.poll, time.perf_counter
            until = clock() + self.awake
            while not ready(0) and clock() < until:
                os.sched_yield()
        return os.read(self.input, count)

    def read(self, count):
        while len(self.buffer) < count:
            # A larger buffer than is needed costs time.
            more = self.read_some(min(max(512, count - len(self.buffer)), 1 << 20))
            if not more:
                return None
            self.buffer += more
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def receive(self):
        """A frame's kind and payload; nothing where mbrl is gone."""
        head = self.read(5)
        if head is None:
            return None, b""
        length, kind = _HEAD.unpack(head)
        payload = self.read(length - 1)
        return (None, b"") if payload is None else (kind, payload)

    def write(self, data):
        try:
            written = os.write(self.output, data)
            while written < len(data):
                data = data[written:]
                written = os.write(self.output, data)
        except BrokenPipeError:
            os._exit(0)  # mbrl is gone

    def send(self, kind, payload):
        if not self.begun:
            self.begun = True
            self.write(MAGIC)
        self.write(_HEAD.pack(len(payload) + 1, kind) + payload)

    def greet(self, spec):
        kind, payload = self.receive()
        if kind is None:
            os._exit(0)
        if kind != HELLO or PROTOCOL not in json.loads(payload.decode()).get("protocols", []):
            raise RuntimeError(f"mbrl does not speak version {PROTOCOL} of the protocol: install the mbrl_env that came with it")
        self.send(SPEC, json.dumps(spec).encode())

    def tell(self):
        """The exception that is being handled."""
        what = traceback.format_exc()
        self.send(ERROR, what[-16000:].encode("utf-8", "replace"))

    def telling(self):
        return _Telling(self)


class _Telling:
    """Tells mbrl of an exception, and ends the process."""

    def __init__(self, channel):
        self.channel = channel

    def __enter__(self):
        return self

    def __exit__(self, kind, error, _):
        if kind is not None and issubclass(kind, Exception):
            what = "".join(traceback.format_exception(kind, error, error.__traceback__))
            self.channel.send(ERROR, what[-16000:].encode("utf-8", "replace"))
            sys.stderr.flush()
            os._exit(1)


class _Server:
    """An environment, and how its observations and actions become rows of numbers and back."""

    def __init__(self, env, told):
        self.env = env
        for method in ("reset", "step"):
            if not callable(getattr(env, method, None)):
                raise TypeError(f"{type(env).__name__} has no method `{method}`: expected an environment")
        unwrapped = getattr(env, "unwrapped", env)
        spec = getattr(env, "spec", None)
        name = told["name"] or getattr(spec, "id", None) or type(unwrapped).__name__
        max_steps = told["max_steps"] if told["max_steps"] is not None else getattr(spec, "max_episode_steps", None)
        self.flatten, observation = _observation(env, told)
        self.unflatten, action = _action(env, told)
        self.spec = {
            "protocol": PROTOCOL,
            "name": str(name),
            "observation": observation,
            "action": action,
            "control_period": _period(env, unwrapped, told["control_period"]),
            "max_steps": None if max_steps is None else int(max_steps),
            "server": f"mbrl_env {__version__}, Python {sys.version.split()[0]}",
        }
        self.takes_seed = _takes_seed(env.reset)
        self.names, self.blob = (), b""
        # The infos of the last step: how many, which of them are numbers, and what packs those.
        self.info_length, self.info_keys, self.info_pack = -1, (), None
        width = len(action["low"]) if action["kind"] == "box" else 1
        self.step_length = 5 + 4 * width
        self.step_head = _HEAD.pack(1 + 4 * width, STEP)

    def run(self, channel):
        receive, write, step, unflatten = channel.receive, channel.write, self.step, self.unflatten
        read, head, length = channel.read_some, self.step_head, self.step_length
        while True:
            # A step is all that comes in one piece, mostly.
            data = read(length) if not channel.buffer else b""
            if len(data) == length and data[:5] == head:
                kind, payload = STEP, data[5:]
            else:
                channel.buffer += data
                kind, payload = receive()
            try:
                if kind == STEP:
                    write(step(unflatten(payload)))
                elif kind == RESET:
                    seeded, seed = struct.unpack("<BQ", payload)
                    channel.send(OBSERVATION, self.reset(seed if seeded else None))
                elif kind is None or kind == CLOSE:
                    break
                else:
                    raise RuntimeError(f"mbrl sent a message of the unknown kind {kind}")
            except Exception:
                channel.tell()
        close = getattr(self.env, "close", None)
        if callable(close):
            close()

    def reset(self, seed):
        if self.takes_seed:
            found = self.env.reset(seed=seed)
        else:
            if seed is not None:
                seeds = getattr(self.env, "seed", None)
                if callable(seeds):
                    seeds(seed)
                else:
                    random.seed(seed)
                    if np is not None:
                        np.random.seed(seed % 2**32)
            found = self.env.reset()
        if isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], dict):
            found = found[0]
        data = self.flatten(found)
        return struct.pack("<I", len(data) // 8) + data

    def step(self, action):
        found = self.env.step(action)
        try:
            if len(found) == 5:
                obs, reward, terminated, truncated, info = found
            elif len(found) == 4:
                # Gym's interface until 0.25: a time limit is told in the info.
                obs, reward, done, info = found
                truncated = bool(info.get("TimeLimit.truncated", False))
                terminated = bool(done) and not truncated
            else:
                obs, reward, terminated = found
                truncated, info = False, None
        except (TypeError, ValueError, AttributeError):
            raise TypeError(
                f"step returned {type(found).__name__} {found!r:.200}, expected (observation, reward, terminated, truncated, info)"
            ) from None
        data = self.flatten(obs)
        flags = (1 if terminated else 0) | (2 if truncated else 0)
        values = self.numbers(info) if info else b""
        names, blob = (self.names, self.blob) if values else ((), b"")
        counts = _COUNTS.pack(len(names), len(blob))
        length = 13 + len(data) + 8 + len(blob) + len(values)
        return b"".join((_TRANSITION.pack(length + 1, TRANSITION, flags, float(reward), len(data) // 8), data, counts, blob, values))

    def numbers(self, info):
        """The numbers of an info as bytes; sets their names. Infos are mostly those of the step before, with other values."""
        if len(info) == self.info_length:
            try:
                return self.info_pack(*[info[key] for key in self.info_keys])
            except (KeyError, struct.error, TypeError, OverflowError):
                pass
        keys, names = [], []
        for key, value in info.items():
            if isinstance(value, (int, float)) or (np is not None and isinstance(value, (np.number, np.bool_))):
                name = str(key).replace("\n", " ")[:200]
                try:
                    float(value)
                except (TypeError, OverflowError):
                    continue
                if name and len(names) < 256 and name not in names:
                    keys.append(key)
                    names.append(name)
        self.names, self.blob = tuple(names), "\n".join(names).encode("utf-8", "replace")
        self.info_length, self.info_keys, self.info_pack = len(info), keys, struct.Struct(f"<{len(keys)}d").pack
        return self.info_pack(*[float(info[key]) for key in keys])


def _takes_seed(reset):
    try:
        parameters = inspect.signature(reset).parameters.values()
    except (TypeError, ValueError):
        return True
    return any(p.name == "seed" or p.kind is p.VAR_KEYWORD for p in parameters)


def _period(env, unwrapped, told):
    if told is not None:
        return float(told)
    for owner, key in ((unwrapped, "dt"), (unwrapped, "tau")):
        value = getattr(owner, key, None)
        if isinstance(value, (int, float)) and value > 0:
            return float(value)
    frames = (getattr(env, "metadata", None) or {}).get("render_fps")
    return 1.0 / float(frames) if isinstance(frames, (int, float)) and frames > 0 else None


def _bytes(values):
    """Doubles as little-endian bytes."""
    if sys.byteorder == "big":
        values = array("d", values)
        values.byteswap()
    return values.tobytes()


def _bound(value):
    value = float(value)
    return value if math.isfinite(value) else None


def _fields(told):
    return [entry if isinstance(entry, dict) else field(entry) for entry in told]


def _width(fields):
    return sum(math.prod(entry["shape"]) for entry in fields)


# Observations


def _observation(env, told):
    space = getattr(env, "observation_space", None)
    names = told["fields"]
    if space is None:
        if names is None:
            raise TypeError(
                f"{type(env).__name__} has no `observation_space`: give serve(fields=[...]) the names of the observation's columns, "
                "or their number"
            )
        fields = [field("obs", shape=[names])] if isinstance(names, int) else _fields(names)
        width = _width(fields)
        return _numbers, {"fields": fields, "low": [None] * width, "high": [None] * width}
    parts = _parts(space, "")
    if names is not None and not isinstance(names, int):
        fields = _fields(names)
    elif len(parts) == 1 and parts[0]["name"] == "" and len(parts[0]["shape"]) <= 1:
        fields = [field("obs", shape=[_size(parts[0])], flag=parts[0]["flag"])]
    else:
        fields = [field(part["name"] or "obs", shape=part["shape"], flag=part["flag"]) for part in parts]
    spec = {
        "fields": fields,
        "low": [bound for part in parts for bound in part["low"]],
        "high": [bound for part in parts for bound in part["high"]],
    }
    if len(parts) == 1 and parts[0]["take"] is None:
        return _numbers, spec
    return lambda obs: b"".join(part["take"](obs) if part["take"] else _numbers(obs) for part in parts), spec


def _numbers(obs):
    """An observation as little-endian doubles."""
    if np is not None:
        return np.asarray(obs, _F8).tobytes()
    if isinstance(obs, (int, float)):
        obs = (obs,)
    return _bytes(array("d", _flat(obs)))


def _flat(obs):
    if not obs or isinstance(obs[0], (int, float)):
        return obs
    return [number for part in obs for number in _flat(part)]


def _size(part):
    return math.prod(part["shape"])


def _parts(space, name):
    """A space as parts: name, shape, bounds, and what takes the numbers out of a whole observation (None: all of it)."""

    def part(shape, low, high, flag=False, take=None):
        return [{"name": name, "shape": list(shape), "low": low, "high": high, "flag": flag, "take": take}]

    def named(key):
        return f"{name}.{key}" if name else str(key)

    def within(key, inner):
        for one in inner:
            take = one["take"] or _numbers
            one["take"] = lambda obs, key=key, take=take: take(obs[key])
        return inner

    if hasattr(space, "spaces"):
        spaces = space.spaces
        items = spaces.items() if hasattr(spaces, "items") else enumerate(spaces)
        return [one for key, inner in items for one in within(key, _parts(inner, named(key)))]
    kind = type(space).__name__
    if hasattr(space, "low") and hasattr(space, "high"):
        flat = lambda bounds: [_bound(x) for x in np.asarray(bounds, float).reshape(-1)]
        return part(space.shape, flat(space.low), flat(space.high))
    if kind == "Discrete":
        n, start = int(space.n), int(getattr(space, "start", 0))

        def one_hot(obs):
            row = array("d", bytes(8 * n))
            row[int(obs) - start] = 1.0
            return _bytes(row)

        return part([n], [0.0] * n, [1.0] * n, True, one_hot)
    if kind == "MultiBinary":
        shape = list(space.shape)
        size = math.prod(shape)
        return part(shape, [0.0] * size, [1.0] * size, True)
    if kind == "MultiDiscrete":
        sizes = [int(n) for n in np.asarray(space.nvec).reshape(-1)]
        starts = [0] * len(sizes) if getattr(space, "start", None) is None else [int(s) for s in np.asarray(space.start).reshape(-1)]

        def one_hots(obs):
            row = array("d", bytes(8 * sum(sizes)))
            at = 0
            for value, n, start in zip(np.asarray(obs).reshape(-1), sizes, starts):
                row[at + int(value) - start] = 1.0
                at += n
            return _bytes(row)

        return part([sum(sizes)], [0.0] * sum(sizes), [1.0] * sum(sizes), True, one_hots)
    raise TypeError(
        f"the observation space {space!r:.200} is no row of numbers: expected Box, Discrete, MultiBinary, MultiDiscrete, or a Dict or "
        "Tuple of those; put a wrapper around the environment (gymnasium.wrappers.TransformObservation, FlattenObservation)"
    )


# Actions


def _action(env, told):
    space = getattr(env, "action_space", None)
    discrete, low, high, names = told["actions"], told["action_low"], told["action_high"], told["action_fields"]
    kind = type(space).__name__
    start, dtype, shape = 0, None, None
    if space is not None and discrete is None and low is None and high is None:
        if kind == "Discrete":
            discrete, start = int(space.n), int(getattr(space, "start", 0))
        elif hasattr(space, "low") and hasattr(space, "high"):
            low, high, shape, dtype = space.low, space.high, space.shape, getattr(space, "dtype", None)
        else:
            raise TypeError(
                f"the action space {space!r:.200} is neither Box nor Discrete: put a wrapper around the environment "
                "(gymnasium.wrappers.TransformAction) that makes it one of them"
            )
    if discrete is not None:
        fields = [field("action")] if names is None or isinstance(names, int) else _fields(names)

        def index(payload):
            return int(struct.unpack("<f", payload)[0]) + start

        return index, {"kind": "discrete", "n": int(discrete), "fields": fields}
    if low is None or high is None:
        raise TypeError(
            f"{type(env).__name__} has no `action_space`: give serve(action_low=..., action_high=...) the bounds of its actions, or "
            "serve(actions=n) how many there are"
        )
    low, high = _row(low), _row(high)
    fields = None if names is None else [field("action", shape=[names])] if isinstance(names, int) else _fields(names)
    width = max(len(low), len(high), 0 if fields is None else _width(fields))
    low, high = low * width if len(low) == 1 else low, high * width if len(high) == 1 else high
    if fields is None:
        fields = [field("action", shape=[width])]
    box = {"kind": "box", "low": [_bound(x) for x in low], "high": [_bound(x) for x in high], "fields": fields}
    if np is None:
        unpack = struct.Struct(f"<{width}f").unpack
        return (lambda payload: list(unpack(payload))), box
    dtype, shape = np.dtype(dtype or np.float32), (width,) if shape is None else shape

    def numbers(payload):
        # A copy, that may be written to.
        action = np.frombuffer(payload, _F4).astype(dtype)
        return action if shape == (width,) else action.reshape(shape)

    return numbers, box


def _row(bounds):
    if np is not None:
        return [float(x) for x in np.asarray(bounds, float).reshape(-1)]
    return [float(bounds)] if isinstance(bounds, (int, float)) else [float(x) for x in bounds]


# The command line


def main(words=None):
    """`python -m mbrl_env TARGET [--import MODULE] [--make JSON]`.

    TARGET is an id of Gymnasium, a class or function as `module:Name`, or one in a file as `path.py:Name`.
    """
    import argparse

    parser = argparse.ArgumentParser(prog="mbrl_env", description="Serves an environment to mbrl.")
    parser.add_argument("target", help="an id of Gymnasium, module:Name or file.py:Name")
    parser.add_argument("--import", dest="imports", action="append", default=[], help="import a module that registers it")
    parser.add_argument("--make", default="{}", help="keyword arguments as JSON")
    args = parser.parse_args(words)
    arguments = json.loads(args.make)
    sys.path.insert(0, os.getcwd())

    def make():
        import importlib

        for module in args.imports:
            importlib.import_module(module)
        owner, colon, attribute = args.target.rpartition(":")
        if colon and attribute.isidentifier():
            if owner.endswith(".py"):
                import importlib.util

                spec = importlib.util.spec_from_file_location("mbrl_env_target", owner)
                module = importlib.util.module_from_spec(spec)
                sys.modules[spec.name] = module
                spec.loader.exec_module(module)
            else:
                module = importlib.import_module(owner)
            return getattr(module, attribute)(**arguments)
        try:
            import gymnasium
        except ImportError as error:
            raise ImportError(
                f"{error}: `{args.target}` is taken for an id of Gymnasium, which {sys.executable} does not have: install it "
                f"(`{sys.executable} -m pip install gymnasium`), or name another Python (task_options.python)"
            ) from None
        return gymnasium.make(args.target, **arguments)

    serve(make)


if __name__ == "__main__":
    main()
