// An async handler in an ES module. The AWS SDK lies in the image and is loaded only if a table is named.
const GREETINGS = { de: 'Moin', en: 'Hello', es: 'Hola', fr: 'Bonjour' };

let calls = 0;

export const handler = async (event, context) => {
  calls += 1;
  const name = String(event.name ?? 'stranger').slice(0, 80);
  const greeting = GREETINGS[event.language] ?? GREETINGS.en;
  console.log(`greeting ${name}, call ${calls} of this instance, ${context.getRemainingTimeInMillis()} ms left`);

  if (process.env.GUESTBOOK_TABLE) {
    const { DynamoDBClient, PutItemCommand } = await import('@aws-sdk/client-dynamodb');
    const Item = { id: { S: context.awsRequestId }, name: { S: name } };
    await new DynamoDBClient({}).send(new PutItemCommand({ TableName: process.env.GUESTBOOK_TABLE, Item }));
  }
  return { message: `${greeting}, ${name}!`, call: calls, requestId: context.awsRequestId };
};
