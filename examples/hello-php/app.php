<?php

declare(strict_types=1);

use Example\Tally\Sums;

// Composer's autoloader is loaded before this file.
function handler(array $event, $context): array
{
    if (!isset($event['rows'])) {
        throw new InvalidArgumentException('the event needs rows');
    }
    echo count($event['rows']), " rows, {$context->getRemainingTimeInMillis()} ms left\n";
    return ['sums' => Sums::by('item', 'cents', $event['rows']), 'request_id' => $context->getAwsRequestId()];
}
