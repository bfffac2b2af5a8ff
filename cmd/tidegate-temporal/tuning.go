package main

import (
	"time"

	"go.temporal.io/server/common/dynamicconfig"
)

// tuning is the server's dynamic configuration for one process, one store and
// a handful of workers. The defaults protect a shared cluster from its tenants;
// here they only make the one tenant wait.
func tuning() dynamicconfig.StaticClient {
	const unlimited = 100_000
	return dynamicconfig.StaticClient{
		dynamicconfig.FrontendRPS.Key():                                  unlimited,
		dynamicconfig.FrontendMaxNamespaceRPSPerInstance.Key():           unlimited,
		dynamicconfig.FrontendMaxNamespaceVisibilityRPSPerInstance.Key(): 1_000,

		// How often a shard may look for new tasks. Each step of a workflow
		// needs one look, so that the default of 20 a second makes every step
		// of all grants together take 50 ms.
		dynamicconfig.TransferProcessorMaxPollRPS.Key():   2_000,
		dynamicconfig.TimerProcessorMaxPollRPS.Key():      2_000,
		dynamicconfig.VisibilityProcessorMaxPollRPS.Key(): 2_000,

		// No new timer may be due earlier than this from now; it allows for
		// clocks that differ between hosts. At the default of one second,
		// shorter timers and retries fire up to a second late.
		dynamicconfig.TimerProcessorMaxTimeShift.Key(): 5 * time.Millisecond,

		// Four partitions a queue spread load over hosts; with one host they
		// make a poller wait on an empty one.
		dynamicconfig.MatchingNumTaskqueueReadPartitions.Key():  1,
		dynamicconfig.MatchingNumTaskqueueWritePartitions.Key(): 1,
	}
}
