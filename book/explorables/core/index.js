// All that an explorable needs, from one place.

export * from "./attack.js";
export * from "./cam.js";
export * from "./climb.js";
export * from "./draw.js";
export * from "./explain.js";
export * from "./latent.js";
export * from "./lime.js";
export * from "./network.js";
export * from "./page.js";
export * from "./pictures.js";
export * from "./plot.js";
export * from "./shapley.js";
