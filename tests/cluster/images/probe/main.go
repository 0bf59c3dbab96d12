// Command probe is what the cluster's own tests run in pods: a web server, and two ways to look from inside a pod. The
// image holds nothing else, not even a shell.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"
)

const patience = 5 * time.Second

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 1 && args[0] == "serve":
		return serve()
	case len(args) == 2 && args[0] == "get":
		return get(args[1])
	case len(args) == 2 && args[0] == "lookup":
		return lookup(args[1])
	}
	return fmt.Errorf("usage: probe serve | get URL | lookup NAME")
}

// serve answers every request at port 8080 with the pod's name, and logs it.
func serve() error {
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	fmt.Println("serving as", name)
	return http.ListenAndServe(":8080", http.HandlerFunc(func(answer http.ResponseWriter, request *http.Request) {
		fmt.Println(request.Method, request.URL, "from", request.RemoteAddr)
		fmt.Fprintln(answer, name)
	}))
}

// get prints what an address answers.
func get(url string) error {
	answer, err := (&http.Client{Timeout: patience}).Get(url)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if _, err := io.Copy(os.Stdout, answer.Body); err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("answered %s", answer.Status)
	}
	return nil
}

// lookup prints the addresses of a name, as the pod's resolver finds them.
func lookup(name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupHost(ctx, name)
	if err != nil {
		return err
	}
	for _, address := range addresses {
		fmt.Println(address)
	}
	return nil
}
