package workflows

import (
	"context"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/interceptor"
)

// silence is how long an activity may be silent before Temporal gives it to
// another worker: a control that was killed delays what it was doing by no
// more than this. What takes less says nothing at all.
const silence = 10 * time.Second

// beating is the interceptor that lets every activity say that it lives.
type beating struct {
	interceptor.WorkerInterceptorBase
}

// InterceptActivity implements interceptor.WorkerInterceptor.
func (*beating) InterceptActivity(_ context.Context, next interceptor.ActivityInboundInterceptor) interceptor.ActivityInboundInterceptor {
	return &beatingActivity{interceptor.ActivityInboundInterceptorBase{Next: next}}
}

type beatingActivity struct {
	interceptor.ActivityInboundInterceptorBase
}

// ExecuteActivity implements interceptor.ActivityInboundInterceptor.
func (b *beatingActivity) ExecuteActivity(ctx context.Context, in *interceptor.ExecuteActivityInput) (any, error) {
	if every := activity.GetInfo(ctx).HeartbeatTimeout / 3; every > 0 {
		ctx, stop := context.WithCancel(ctx)
		beats := make(chan struct{})
		go func() { defer close(beats); beat(ctx, every) }()
		defer func() { stop(); <-beats }()
	}
	return b.Next.ExecuteActivity(ctx, in)
}

// beat tells Temporal again and again until ctx ends.
func beat(ctx context.Context, every time.Duration) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			activity.RecordHeartbeat(ctx)
		}
	}
}
