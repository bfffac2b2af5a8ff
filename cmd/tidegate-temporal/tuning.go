package main

import (
	"go.temporal.io/server/common/dynamicconfig"
)

// tuning is the server's dynamic configuration for one process, one store and
// a handful of workers.
func tuning() dynamicconfig.StaticClient {
	const unlimited = 100_000
	return dynamicconfig.StaticClient{
		// The limits protect a shared cluster from its tenants.
		dynamicconfig.FrontendRPS.Key():                                  unlimited,
		dynamicconfig.FrontendMaxNamespaceRPSPerInstance.Key():           unlimited,
		dynamicconfig.FrontendMaxNamespaceVisibilityRPSPerInstance.Key(): 1_000,

		// Four partitions a queue spread load over hosts; with one host they
		// make a poller wait on an empty one.
		dynamicconfig.MatchingNumTaskqueueReadPartitions.Key():  1,
		dynamicconfig.MatchingNumTaskqueueWritePartitions.Key(): 1,
	}
}
