/** Task families: labels, units, decoding and scores. As in `trunkline.tasks`. */
import { classification } from "./classification.js";
import { TrunklineError } from "./errors.js";
import type { Decisions } from "./manifest.js";
import { multilabel } from "./multilabel.js";
import { ner } from "./ner.js";
import { qa } from "./qa.js";
import type { ReadText, UnitKind, UnitText } from "./units.js";
import type { Border } from "./words.js";

/** A text as one of a class. */
export interface Classified {
  /** Null where no label is likely enough, or none of these is likelier. */
  label: string | null;
  score: number;
  /** Of every label, most probable first; JavaScript puts labels that are whole numbers first. */
  probabilities: Record<string, number>;
  /** With `coverage`: the labels that may be true. */
  set?: string[];
}

/** A text with any number of labels. */
export interface Several {
  /** From their thresholds on, most probable first. */
  labels: string[];
  /** Of every label, each for itself, most probable first. */
  probabilities: Record<string, number>;
}

/** An entity; `text.slice(start, end)` is its text. */
export interface Entity {
  start: number;
  end: number;
  text: string;
  label: string;
  score: number;
}

/** An answer, by its place in the context; null where there is none. */
export interface Answer {
  answer: string;
  start: number | null;
  end: number | null;
  score: number;
}

/** A labelled span of a text, end exclusive. */
export interface Span {
  start: number;
  end: number;
  label: string;
}

/** What is true of a text: its label, its labels, or its entities. */
export type Gold = string | readonly string[] | readonly Span[];
export type Prediction = Classified | Several | Entity[] | Answer;
export type Scores = Record<string, number>;

/** What a head says of a text: [units, labels] probabilities, and the borders of the units. */
export interface Scored {
  probabilities: Float32Array;
  read: ReadText;
  borders: readonly Border[];
  labels: readonly string[];
  transitions: Float32Array | null;
  decisions?: Decisions;
}

export interface Family {
  /** Whether a unit has any number of labels, each a yes or no; then `targets` has one for each label. */
  several: boolean;
  /** Whether units are in windows of their own, so that such texts share no trunk with others. */
  ownWindows: boolean;
  checkLabels(labels: readonly string[], where: string): void;
  units(read: ReadText, borders: readonly Border[]): UnitText;
  /** [units, labels] logits -> probabilities in float32, each unit for itself. */
  probabilities(logits: Float32Array, labels: number): Float32Array;
  decode(scored: Scored): Prediction;
}

/** A family whose heads are fitted here. */
export interface Learnable extends Family {
  mainScore: string;
  /** What heads read of units besides the encoder's features, [units, `SHAPES`], if anything. */
  shapes?(read: ReadText, borders: readonly Border[]): Float32Array;
  /** The outputs of a head for these examples. */
  labels(gold: readonly Gold[]): string[];
  chooseUnits(read: readonly ReadText[], gold: readonly Gold[]): UnitKind;
  /** The classes that an example gives evidence of. */
  classes(gold: Gold): Set<string>;
  /** The index of each unit's label, -1 for one that the head does not have. */
  targets(read: ReadText, gold: Gold, labels: readonly string[], borders: readonly Border[]): number[];
  /** What labels of neighbouring units are worth to each other; null for nothing. */
  transitions(targets: readonly number[][], labels: readonly string[]): Float32Array | null;
  /** How much weights of labels have in common before any is learnt; null for nothing. */
  covariance(labels: readonly string[]): Float64Array | null;
  score(gold: readonly Gold[], predicted: readonly Prediction[]): Scores;
  /** What is true and what was predicted, one text an answer, `[..., label]` in JSON. */
  compare(gold: Gold, prediction: Prediction): [Set<string>, Set<string>];
  /** The answers that were predicted, as `compare` writes them, with their scores. */
  confidences(prediction: Prediction): [string, number][];
  /** The probability that was given to what is true, where it is known. */
  likelihood(gold: Gold, prediction: Prediction): number | undefined;
}

const FAMILIES: Record<string, Family> = { classification, multilabel, ner, qa };
const LEARNABLE: Record<string, Learnable> = { classification, multilabel, ner };

export function familyOf(name: string): Family {
  return known(FAMILIES, name);
}

/** The family, if its heads are fitted here. */
export function learnable(name: string): Learnable {
  return known(LEARNABLE, name);
}

function known<T>(families: Record<string, T>, name: string): T {
  if (Object.hasOwn(families, name)) return families[name]!;
  throw new TrunklineError(`family ${name}`, Object.keys(families).join(" or "), "Other families are for Python");
}

/** A number with at most six decimals. */
export function rounded(value: number): number {
  return Math.round(value * 1e6) / 1e6;
}

/** [units, labels] logits -> probabilities in float32, each unit for itself. */
export function softmax(logits: Float32Array, labels: number): Float32Array {
  const found = new Float32Array(logits.length);
  for (let begin = 0; begin < logits.length; begin += labels) {
    const row = logits.subarray(begin, begin + labels);
    const top = Math.max(...row);
    let sum = 0;
    for (let n = 0; n < labels; n++) sum += found[begin + n] = Math.exp(row[n]! - top);
    for (let n = 0; n < labels; n++) found[begin + n]! /= sum;
  }
  return found;
}
