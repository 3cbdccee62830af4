export type { Reader, Source } from "./bundle.js";
export type { Asked } from "./decisions.js";
export { TrunklineError } from "./errors.js";
export type { Evaluation, LabelScores } from "./evaluate.js";
export type { Answer, Classified, Entity, Gold, Prediction, Scores, Span } from "./families.js";
export type { Spent } from "./engine.js";
export { type FitOptions, type FitReport, type LoadOptions, Model, type Sizes, load } from "./model.js";
export type { Ort, RuntimeOptions } from "./ort.js";
