package main

import (
	"context"
	"log"

	"github.com/aws/aws-lambda-go/lambda"
)

type event struct {
	Name string `json:"name"`
}

type result struct {
	Message string `json:"message"`
}

func handle(ctx context.Context, e event) (result, error) {
	if e.Name == "" {
		e.Name = "world"
	}
	log.Printf("greeting %s", e.Name)
	return result{Message: "Hello, " + e.Name + "!"}, nil
}

func main() {
	lambda.Start(handle)
}
