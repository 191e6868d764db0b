// SPDX-License-Identifier: Apache-2.0
//
// A linear program as text of the LP format, and HiGHS that solves it. Solving blocks its thread: use it in a worker.

import { BasaltError } from '../model/errors.js';

export interface Term {
  readonly variable: string;
  readonly factor: number;
}

export type Relation = '<=' | '=' | '>=';

/** Minimizes. Variables and rows keep the order in which they were added, so that the same program has the same answer. */
export class LinearProgram {
  readonly #costs: string[] = [];
  readonly #rows: string[] = [];
  readonly #bounds: string[] = [];
  #count = 0;

  /** Returns its name. */
  variable(options: { cost: number; min: number; max: number }): string {
    const name = `x${this.#count++}`;
    this.#costs.push(term({ variable: name, factor: options.cost }));
    const max = options.max === Number.POSITIVE_INFINITY ? '+inf' : number(options.max);
    this.#bounds.push(` ${number(options.min)} <= ${name} <= ${max}`);
    return name;
  }

  row(terms: readonly Term[], relation: Relation, bound: number): void {
    this.#rows.push(` r${this.#rows.length}:${lines(terms.map(term))} ${relation} ${number(bound)}`);
  }

  text(): string {
    const parts = ['Minimize', ` cost:${lines(this.#costs)}`, 'Subject To', ...this.#rows, 'Bounds', ...this.#bounds];
    return [...parts, 'End', ''].join('\n');
  }
}

function number(value: number): string {
  if (!Number.isFinite(value)) throw new BasaltError('PLANNER_FAILED', { detail: 'a bound is not finite' });
  return String(value);
}

function term(entry: Term): string {
  return `${entry.factor < 0 ? '-' : '+'} ${number(Math.abs(entry.factor))} ${entry.variable}`;
}

/** The format does not like long lines. */
function lines(words: readonly string[]): string {
  let text = '';
  for (let at = 0; at < words.length; at += 8) text += ` ${words.slice(at, at + 8).join(' ')}\n`;
  return text.trimEnd();
}

export interface LinearSolution {
  /** Of a variable, by name. */
  value(variable: string): number;
}

export type SolveLinear = (program: LinearProgram) => LinearSolution | null;

interface Highs {
  solve(
    problem: string,
    options: Readonly<Record<string, unknown>>,
  ): { readonly Status: string; readonly Columns: Readonly<Record<string, { readonly Primal?: number }>> };
}

/** Loads the solver. What it returns gives null for a program that has no solution. @throws PLANNER_FAILED */
export async function loadHighs(): Promise<SolveLinear> {
  // Its types are those of a CommonJS package; what is imported is an ES module.
  const loaded = (await import('highs')) as unknown as { default: () => Promise<Highs> };
  const highs = await loaded.default();
  return (program) => {
    // Simplex: its answers are vertices, which the planner relies on. One thread and no clock: the same answer every time.
    const solution = highs.solve(program.text(), { solver: 'simplex', parallel: 'off', output_flag: false });
    if (solution.Status === 'Infeasible') return null;
    if (solution.Status !== 'Optimal')
      throw new BasaltError('PLANNER_FAILED', { detail: `solver: ${solution.Status}` });
    return { value: (variable) => solution.Columns[variable]?.Primal ?? 0 };
  };
}
