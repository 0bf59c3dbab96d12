<?php

declare(strict_types=1);

namespace Example\Tally;

/** Sums up rows by one of their columns. */
final class Sums
{
    /**
     * @param list<array<string, mixed>> $rows
     * @return array<string, int>
     */
    public static function by(string $key, string $of, array $rows): array
    {
        $sums = [];
        foreach ($rows as $row) {
            $sums[$row[$key]] = ($sums[$row[$key]] ?? 0) + $row[$of];
        }
        ksort($sums);
        return $sums;
    }
}
