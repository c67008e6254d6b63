#!/usr/bin/env python3
"""Run a policy that `mbrl export` wrote, with NumPy alone: python run_policy.py FILE.safetensors OBSERVATION…"""
import json, sys
import numpy as np

ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0), "tanh": np.tanh, "silu": lambda x: x / (1 + np.exp(-x)),
    "elu": lambda x: np.where(x < 0, np.expm1(np.minimum(x, 0)), x), "mish": lambda x: x * np.tanh(np.logaddexp(0, x)),
}


def load(path):
    data = open(path, "rb").read()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    words = header.pop("__metadata__")
    assert (words["format"], words["format_version"]) == ("mbrl-policy", "1"), words
    place = lambda t: data[start + t["data_offsets"][0] : start + t["data_offsets"][1]]
    return words, {name: np.frombuffer(place(t), "<f4").reshape(t["shape"]) for name, t in header.items()}


def act(words, arrays, obs):
    """The best actions [N, A] for observations [N, O]."""
    obs = np.asarray(obs, np.float32)
    angles = json.loads(words["angles"])
    turned = obs[:, angles] * (2 * np.pi / arrays.get("angles.turn", np.ones(0))).astype(np.float32)
    x = np.concatenate([obs, np.cos(turned)], 1)
    x[:, angles] = np.sin(turned)
    if "inputs.shift" in arrays:
        x = np.clip((x - arrays["inputs.shift"]) * arrays["inputs.scale"], -10, 10)
    layers = sum(name.startswith("layers.") for name in arrays) // 2
    for l in range(layers):
        x = x @ arrays[f"layers.{l}.weight"].T + arrays[f"layers.{l}.bias"]
        if f"norms.{l}.weight" in arrays:
            x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
            x = x * arrays[f"norms.{l}.weight"] + arrays[f"norms.{l}.bias"]
        x = ACTIVATIONS[words["activation"]](x) if l + 1 < layers else x
    if words["head"] == "categorical":
        return x.argmax(1, keepdims=True)
    low, high = arrays["action.low"], arrays["action.high"]
    x = np.clip(x, -1, 1) if words["head"] == "gaussian" else np.tanh(x[:, : len(low)])
    return low * (0.5 - 0.5 * x) + high * (0.5 + 0.5 * x)


if __name__ == "__main__":
    words, arrays = load(sys.argv[1])
    action = act(words, arrays, [[float(x) for x in sys.argv[2:]]])[0]
    for name, unit, value in zip(json.loads(words["action_names"]), json.loads(words["action_units"]), action):
        print(f"{name} = {value} {unit}".strip())
