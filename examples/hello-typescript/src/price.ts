import { z } from 'zod';

/** What a caller has to say; anything else is refused with the field's name. */
export const Order = z.object({
  item: z.string().min(1),
  quantity: z.number().int().positive(),
  cents: z.number().int().nonnegative(),
});
export type Order = z.infer<typeof Order>;

export const total = (order: Order): number => order.quantity * order.cents;
