#!/usr/bin/env python3
"""Writes azure2019-like.trace: one day of a few hundred functions, shaped like the Azure Functions trace of 2019.

Usage: make_trace.py <folder models/ of the Python package orcbench 0.1.4> > azure2019-like.trace
README.md beside this file says what comes from where. Needs nothing but Python's standard library; the same
seed gives the same file.
"""
import json
import math
import random
import sys

SEED = 2019
FUNCTIONS = 300
DAY = 86_400.0
# Share of functions that OrcBench's models describe: those of applications that are called more than once a
# minute on average ("Serverless in the Wild", ATC 2020: 81 % of applications are called less).
POPULAR = 0.19
# A function that is called more often meets a cold start at its first call only, whatever is decided.
MOST_CALLS_A_SECOND = 4.0
# The same paper: timers trigger 15.6 % of all functions. Their periods are not published; these are assumed.
TIMERS = 0.156
PERIODS = [(60, 10), (300, 30), (600, 10), (900, 15), (1_800, 10), (3_600, 15), (21_600, 5), (86_400, 5)]
# The same paper, for applications: 45 % are called at most once an hour, 81 % at most once a minute; in
# between, and down to one call a day, evenly on a logarithmic axis.
RARE = 45 / 81
# Coefficients of variation of the intervals between calls, after the paper's figure 6 for applications
# without timers: a tenth is periodic, less than half lies between periodic and Poisson, the rest is bursty.
REGULARITY = [(0.10, 0.02, 0.08), (0.45, 0.3, 1.0), (0.45, 1.0, 4.0)]
TRIGGERS = [("http", 55.0), ("queue", 15.2), ("orchestration", 6.9), ("storage", 2.8), ("event", 2.2), ("other", 2.2)]


def load_models(folder):
    models = []
    for number in range(25):
        with open(f"{folder}/{number}-model") as file:
            model = json.load(file)
        # Calls a minute at each quantile, as OrcBench stores it.
        model["gaps"] = [60.0 / rate for rate in model["inverse_ecdf"] if rate > 0]
        model["mean_gap"] = sum(model["gaps"]) / len(model["gaps"])
        models.append(model)
    return models


def pick(rng, weighted):
    return rng.choices([w[0] for w in weighted], [w[1] for w in weighted])[0]


def run_ms(rng):
    """Average execution times: log-normal, log-mean -0.38 and sigma 2.36 in seconds (paper, figure 7)."""
    return min(max(math.exp(rng.gauss(-0.38, 2.36)) * 1_000, 1), 300_000)


def memory_mb(rng):
    """Average memory of an application: Burr XII, c = 11.652, k = 0.221, scale = 107.083 (paper, figure 8)."""
    u = rng.random()
    burr = 107.083 * ((1 - u) ** (-1 / 0.221) - 1) ** (1 / 11.652)
    return min(max(burr, 64), 1_024)


def popular(rng, models):
    """As OrcBench draws it: every gap of a function is a quantile of its model's gaps, taken at random."""
    while True:
        model = rng.choices(models, [m["num_functions"] for m in models])[0]
        if 1 / model["mean_gap"] <= MOST_CALLS_A_SECOND:
            break
    now, calls = rng.choice(model["gaps"]) * rng.random(), []
    while now < DAY:
        calls.append(now)
        now += rng.choice(model["gaps"])
    # Memory and time of one of the cluster's functions.
    return calls, rng.choice(model["mbs"]), min(max(rng.choice(model["cpu"]), 1), 300_000)


def timer(rng):
    period = pick(rng, PERIODS)
    # Cron fires at whole minutes; the platform needs a moment.
    phase = rng.randrange(0, period, 60)
    calls = [t + 0.05 + rng.random() * 0.2 for t in range(phase, int(DAY), period)]
    return period, phase, calls


def waking_hours(rng, calls):
    """People call less at night: half of the load is constant, the other half follows the day (figure 4)."""
    def likelihood(t):
        return 0.5 + 0.5 * max(0.0, math.sin(math.pi * (t / DAY - 0.25) / 0.5) if 0.25 <= t / DAY <= 0.75 else 0.0)
    return [t for t in calls if rng.random() < likelihood(t)]


def rare(rng, trigger):
    low, high = ((0.0, math.log(24)) if rng.random() < RARE else (math.log(24), math.log(1_440)))
    gap = DAY / math.exp(rng.uniform(low, high))
    roll = rng.random()
    for share, low, high in REGULARITY:
        if roll < share:
            break
        roll -= share
    cv = rng.uniform(low, high)
    sigma = math.sqrt(math.log(1 + cv * cv))
    draw = lambda mean: math.exp(rng.gauss(math.log(mean) - sigma * sigma / 2, sigma))
    by_day = trigger == "http" and cv >= 0.3
    # What is thinned out afterwards is drawn more densely before.
    mean = gap * (0.66 if by_day else 1.0)
    now, calls = draw(mean) * rng.random(), []
    while now < DAY:
        calls.append(now)
        now += draw(mean)
    return waking_hours(rng, calls) if by_day else calls


def line(number, trigger, memory, run, period, phase, calls):
    head = f"{number} {trigger} {memory:.0f} {run:.0f} {period} {phase}"
    if len(calls) <= 1_440:
        # Tenths of a second since the call before.
        ticks = [round(t * 10) for t in calls]
        return f"{head} t " + " ".join(str(b - a) for a, b in zip([0, *ticks], ticks))
    # Calls in each minute, the resolution of the original trace; `5*3` is 3 calls in each of 5 minutes.
    minutes = [0] * 1_440
    for t in calls:
        minutes[int(t // 60)] += 1
    runs = []
    for count in minutes:
        if runs and runs[-1][1] == count:
            runs[-1][0] += 1
        else:
            runs.append([1, count])
    return f"{head} m " + " ".join(str(c) if n == 1 else f"{n}*{c}" for n, c in runs)


def main():
    rng = random.Random(SEED)
    models = load_models(sys.argv[1])
    print("# One day of functions shaped like the Azure Functions trace of 2019. README.md: source, licence, making.")
    print("# number trigger memory_mb run_ms period_s phase_s, then t: gaps in tenths of a second, or m: calls a minute")
    number = 0
    while number < FUNCTIONS:
        memory, run, period, phase = memory_mb(rng), run_ms(rng), 0, 0
        if number < round(POPULAR * FUNCTIONS):
            trigger = pick(rng, TRIGGERS)
            calls, memory, run = popular(rng, models)
        elif number < round((POPULAR + TIMERS) * FUNCTIONS):
            trigger = "timer"
            period, phase, calls = timer(rng)
        else:
            trigger = pick(rng, TRIGGERS)
            calls = rare(rng, trigger)
        if not calls:
            continue
        print(line(number, trigger, memory, run, period, phase, calls))
        number += 1


main()
