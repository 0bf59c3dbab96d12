<?php

function handler(array $event, $context): array
{
    $name = $event['name'] ?? 'world';
    echo "greeting $name, {$context->getRemainingTimeInMillis()} ms left\n";
    return ['message' => "Hello, $name!"];
}
