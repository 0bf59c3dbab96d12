type Event = { name?: string };

export const handler = async (event: Event) => {
  const name = event.name ?? 'world';
  console.log(`greeting ${name}`);
  return { message: `Hello, ${name}!` };
};
