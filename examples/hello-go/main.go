// A handler with AWS's own client: typed event in, typed result out.
package main

import (
	"context"
	"errors"
	"log"
	"strings"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
)

type event struct {
	Name  string `json:"name"`
	Words string `json:"words"`
}

type result struct {
	Message   string         `json:"message"`
	Counted   map[string]int `json:"counted,omitempty"`
	RequestID string         `json:"request_id"`
}

func handle(ctx context.Context, e event) (result, error) {
	if e.Name == "" {
		return result{}, errors.New("the event needs a name")
	}
	call, _ := lambdacontext.FromContext(ctx)
	log.Printf("counting %d bytes for %s", len(e.Words), e.Name)
	counted := map[string]int{}
	for _, word := range strings.Fields(strings.ToLower(e.Words)) {
		counted[word]++
	}
	return result{Message: "Hello, " + e.Name + "!", Counted: counted, RequestID: call.AwsRequestID}, nil
}

func main() {
	lambda.Start(handle)
}
