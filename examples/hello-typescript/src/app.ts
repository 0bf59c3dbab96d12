// A typed handler: compiled by the project's own TypeScript when it is deployed.
import type { Context } from 'aws-lambda';
import { Order, total } from './price.js';

export const handler = async (event: unknown, context: Context) => {
  const order = Order.safeParse(event);
  if (!order.success) {
    const [issue] = order.error.issues;
    return { statusCode: 400, body: JSON.stringify({ field: issue?.path.join('.'), problem: issue?.message }) };
  }
  console.log(`pricing ${order.data.item}, ${context.getRemainingTimeInMillis()} ms left`);
  return { statusCode: 200, body: JSON.stringify({ item: order.data.item, cents: total(order.data) }) };
};
