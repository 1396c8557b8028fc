// What each player of a game is owed, as course_utils.shapley. A coalition is a number: bit k is 1 if
// player k is in it; its worth is what those players earn together.

// All orders in which n players can come.
export function* orders(n, first = []) {
  if (first.length === n) yield first;
  for (let player = 0; player < n; player++)
    if (!first.includes(player)) yield* orders(n, [...first, player]);
}

// What each player adds to those before it, by player, when they come in this order.
export function addsAlong(order, worth) {
  const adds = [];
  let coalition = 0;
  for (const player of order) {
    adds[player] = worth(coalition | (1 << player)) - worth(coalition);
    coalition |= 1 << player;
  }
  return adds;
}

// The mean of that over all orders, from the worths of all coalitions. Many orders ask the same
// question, so it is counted how many of them begin with a coalition, followed by the player.
export function shapleyValues(worths) {
  const n = Math.log2(worths.length), values = new Array(n).fill(0);
  worths.forEach((before, coalition) => {
    const size = [...values.keys()].filter((k) => (coalition >> k) & 1).length;
    for (let player = 0; player < n; player++)
      if (!((coalition >> player) & 1)) {
        const share = (factorial(size) * factorial(n - 1 - size)) / factorial(n);
        values[player] += share * (worths[coalition | (1 << player)] - before);
      }
  });
  return values;
}

const factorial = (n) => (n > 1 ? n * factorial(n - 1) : 1);
