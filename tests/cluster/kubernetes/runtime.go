package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// What a kubelet asks its container runtime, asked by the scripts.

// withRuntime runs an action with a connection to the runtime that the arguments name, and with the rest of the arguments.
func withRuntime(args []string, action func(ctx context.Context, runtime *grpc.ClientConn, rest []string) error) error {
	flags := flag.NewFlagSet("", flag.ExitOnError)
	socket := flags.String("runtime", "", "path of the container runtime's socket")
	within := flags.Duration("within", 30*time.Second, "give up after this time")
	if err := flags.Parse(args); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), *within)
	defer cancel()
	// The runtime answers some moments after it was started.
	runtime, err := grpc.NewClient("unix://"+*socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		return err
	}
	defer runtime.Close()
	return action(ctx, runtime, flags.Args())
}

// endPods ends every pod of a node whose kubelet is gone, as a kubelet would: so the network plugin takes back what it set
// up, and no mount, namespace or cgroup is left.
//
//	end-pods -runtime SOCKET [-within DURATION]
func endPods(args []string) error {
	return withRuntime(args, func(ctx context.Context, connection *grpc.ClientConn, _ []string) error {
		runtime := cri.NewRuntimeServiceClient(connection)
		pods, err := runtime.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
		if err != nil {
			return err
		}
		var all sync.WaitGroup
		failures := make([]error, len(pods.Items))
		for i, pod := range pods.Items {
			all.Go(func() {
				if _, err := runtime.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: pod.Id}); err != nil {
					failures[i] = fmt.Errorf("stop %s/%s: %w", pod.Metadata.Namespace, pod.Metadata.Name, err)
					return
				}
				if _, err := runtime.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: pod.Id}); err != nil {
					failures[i] = fmt.Errorf("remove %s/%s: %w", pod.Metadata.Namespace, pod.Metadata.Name, err)
				}
			})
		}
		all.Wait()
		return errors.Join(failures...)
	})
}

// pull makes a node fetch images, from where a pod's would be fetched.
//
//	pull -runtime SOCKET [-within DURATION] IMAGE...
func pull(args []string) error {
	return withRuntime(args, func(ctx context.Context, connection *grpc.ClientConn, images []string) error {
		client := cri.NewImageServiceClient(connection)
		for _, image := range images {
			request := &cri.PullImageRequest{Image: &cri.ImageSpec{Image: image}}
			if _, err := client.PullImage(ctx, request); err != nil {
				return fmt.Errorf("pull %s: %w", image, err)
			}
		}
		return nil
	})
}
