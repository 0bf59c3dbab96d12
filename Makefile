# What can be done here. `make help` lists it.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo stop check test campaign bench images image push cluster cluster-down clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## install what is missing, build, start davit, deploy the examples, call them, leave it running
	@scripts/demo.sh

stop: ## stop what `make demo` started
	@scripts/stop.sh

check: ## the fast part of the tests: format, lints, unit tests
	@scripts/test.sh fmt clippy scripts unit

test: ## every test, on real Docker, Postgres and Kubernetes
	@scripts/test.sh

campaign: ## 100,000 jobs, 1,000 schedules, 500 kills, and what davit kept of its promises (an hour and more)
	@scripts/campaign.sh

bench: ## measure davit beside nginx and plain Docker in one run; SCENARIO=cold-python for one scenario
	@scripts/bench.sh $(SCENARIO)

images: ## build runtime images, if anything in them changed: python3.13 node20 provided, or RUNTIMES="go java21", or RUNTIMES=all
	@scripts/setup-docker.sh && scripts/build-agent.sh && scripts/images.sh $(RUNTIMES)

image: ## build davit's own image, davit/davit, from this tree
	@scripts/setup-docker.sh && scripts/build-agent.sh && scripts/davit-image.sh

push: image ## push every image to REGISTRY=host/path, and write target/images.yaml for the chart
	@scripts/images.sh all && scripts/push-images.sh $(REGISTRY)

cluster: ## start a real Kubernetes on this host, for tests; the first time builds it (some minutes)
	@scripts/cluster.sh up

cluster-down: ## end that cluster
	@scripts/cluster.sh down

clean: stop cluster-down ## stop, then remove everything that was built (not davit's state directory)
	rm -rf target
