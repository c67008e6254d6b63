#!/usr/bin/env python3
"""Soft actor-critic of Stable-Baselines3 (PyTorch) or SBX (JAX) on Pendulum-v1, on one thread: updates and whole steps a second.

    pip install --no-deps stable-baselines3==2.9.2 sbx-rl==0.28 gymnasium flax tfp-nightly dm-tree …   # beside torch, jax==0.10.2
    taskset -c 0 python stable_baselines_sac.py sb3 | sbx [--repeats 5] [--returns SEEDS]

One JSON object a line {"work", "ms", "cpu_ms"}: an update with the drawing of its batch, and a step with an update. Two hidden layers
of 256 units, 256 transitions a batch, both libraries' defaults. With --returns, seeds are trained for 5,000 steps, one update a
step from the 100th on, and judged on 20 start states after each 1,000.
"""
import argparse, json, statistics, time, warnings

warnings.filterwarnings("ignore")
import gymnasium as gym
import numpy as np
import torch

torch.set_num_threads(1)


def judge(model):
    env, total = gym.make("Pendulum-v1"), []
    for seed in range(20):
        obs, paid = env.reset(seed=10_000 + seed)[0], 0.0
        for _ in range(200):
            obs, reward, *_ = env.step(model.predict(obs, deterministic=True)[0])
            paid += reward
        total.append(float(paid))
    return round(statistics.mean(total), 1)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("library", choices=["sb3", "sbx"])
    p.add_argument("--repeats", type=int, default=5)
    p.add_argument("--returns", type=int, default=0)
    args = p.parse_args()
    if args.library == "sb3":
        from stable_baselines3 import SAC
        make = lambda seed: SAC("MlpPolicy", gym.make("Pendulum-v1"), seed=seed, device="cpu")
    else:
        from sbx import SAC
        make = lambda seed: SAC("MlpPolicy", gym.make("Pendulum-v1"), seed=seed)
    for seed in range(args.returns):
        model, curve = make(seed), []
        for _ in range(5):
            model.learn(1000, reset_num_timesteps=False)
            curve.append(judge(model))
        print(json.dumps({"library": args.library, "seed": seed, "returns": curve}), flush=True)
    if args.returns:
        return
    model = make(0)
    model.learn(400)
    for work, count, run in [("update", 200, lambda n: model.train(gradient_steps=n, batch_size=256)),
                             ("step", 200, lambda n: model.learn(n, reset_num_timesteps=False))]:
        run(count)
        found = []
        for _ in range(args.repeats):
            wall, cpu = time.perf_counter(), time.process_time()
            run(count)
            found.append(((time.perf_counter() - wall) / count * 1e3, (time.process_time() - cpu) / count * 1e3))
        wall, cpu = (round(statistics.median(x), 3) for x in zip(*found))
        print(json.dumps({"library": args.library, "work": work, "ms": wall, "cpu_ms": cpu}), flush=True)


if __name__ == "__main__":
    main()
