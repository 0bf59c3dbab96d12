<?php

declare(strict_types=1);

namespace Davit;

/** What AWS's context object has, under the names that PHP's frameworks for Lambda use. */
final class Context
{
    public readonly string $awsRequestId;
    public readonly string $invokedFunctionArn;
    public readonly string $traceId;
    public readonly string $functionName;
    public readonly string $functionVersion;
    public readonly int $memoryLimitInMb;
    public readonly string $logGroupName;
    public readonly string $logStreamName;
    private readonly int $deadlineMs;

    public function __construct(array $function, array $headers)
    {
        $this->awsRequestId = $headers['lambda-runtime-aws-request-id'];
        $this->invokedFunctionArn = $headers['lambda-runtime-invoked-function-arn'] ?? '';
        $this->traceId = $headers['lambda-runtime-trace-id'] ?? '';
        $this->deadlineMs = (int) ($headers['lambda-runtime-deadline-ms'] ?? 0);
        $this->functionName = $function['function_name'];
        $this->functionVersion = (string) $function['version'];
        $this->memoryLimitInMb = (int) $function['memory_mb'];
        $this->logGroupName = $function['log_group'];
        $this->logStreamName = $function['log_stream'];
    }

    public function getAwsRequestId(): string
    {
        return $this->awsRequestId;
    }

    public function getInvokedFunctionArn(): string
    {
        return $this->invokedFunctionArn;
    }

    public function getTraceId(): string
    {
        return $this->traceId;
    }

    public function getRemainingTimeInMillis(): int
    {
        return max(0, $this->deadlineMs - (int) (microtime(true) * 1000));
    }
}
