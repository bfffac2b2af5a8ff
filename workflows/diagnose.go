package workflows

import (
	"context"
	"fmt"
	"time"

	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"github.com/tidegate/tidegate/access"
)

// quiet is how long a worker may not have asked for work before it counts as
// gone: an idle one asks at least once a minute.
const quiet = 2 * time.Minute

// Diagnose asks Temporal how it is: reach, namespace, and whether somebody
// works at each task queue. It starts nothing.
func Diagnose(ctx context.Context, opts client.Options) []access.Finding {
	f := &access.Findings{Part: "temporal"}
	c, err := client.DialContext(ctx, opts)
	if err != nil {
		f.Fail("Look at address, tls and api_key_file, and whether it runs. Until then nothing new opens; the end of every grant is kept without it.",
			"%s is not reached: %v", opts.HostPort, err)
		return f.List
	}
	defer c.Close()
	f.OK("%s answers", opts.HostPort)
	ns, err := c.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: opts.Namespace})
	if err != nil {
		f.Fail("Make it, with a retention of at least a day.", "the namespace %q can't be read: %v", opts.Namespace, err)
		return f.List
	}
	f.OK("the namespace %q is there and keeps histories for %s", opts.Namespace, ns.GetConfig().GetWorkflowExecutionRetentionTtl().AsDuration())
	for _, q := range []struct {
		name string
		kind enums.TaskQueueType
		does string
	}{
		{defaultQueue, enums.TASK_QUEUE_TYPE_WORKFLOW, "workflows"},
		{defaultQueue, enums.TASK_QUEUE_TYPE_ACTIVITY, "activities"},
		{revokeQueue(defaultQueue), enums.TASK_QUEUE_TYPE_ACTIVITY, "revocations"},
	} {
		asked := time.Now()
		res, err := c.DescribeTaskQueue(ctx, q.name, q.kind)
		if err != nil {
			f.Fail("Try again.", "who works at the queue %s can't be read: %v", q.name, err)
			continue
		}
		atWork(f, res, fmt.Sprintf("the queue %s (%s)", q.name, q.does), asked)
	}
	return f.List
}

func atWork(f *access.Findings, res *workflowservice.DescribeTaskQueueResponse, where string, now time.Time) {
	n := 0
	for _, p := range res.GetPollers() {
		if now.Sub(p.GetLastAccessTime().AsTime()) < quiet {
			n++
		}
	}
	if n == 0 {
		f.Fail("Start the control side: `tidegate serve`.", "nobody works at %s", where)
		return
	}
	f.OK("%d workers at %s", n, where)
}
