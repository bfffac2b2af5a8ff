package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/server/common/authorization"
	"go.temporal.io/server/common/cluster"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/log"
	"go.temporal.io/server/common/membership/static"
	"go.temporal.io/server/common/persistence/sql/sqlplugin/sqlite"
	"go.temporal.io/server/common/primitives"
	"go.temporal.io/server/temporal"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

const (
	clusterName = "active"

	// historyShards is fixed for the life of a store. All shards share one
	// SQLite connection, so more would only add background work.
	historyShards = 1

	readyTimeout  = 30 * time.Second
	readyInterval = 20 * time.Millisecond
	stopTimeout   = 10 * time.Second
)

// serve runs the server until ctx ends.
func serve(ctx context.Context, o options, std stdio) error {
	store, err := prepareStore(ctx, o.db)
	if err != nil {
		return err
	}
	p, err := pickPorts(o.host, o.port)
	if err != nil {
		return err
	}
	if err := registerNamespace(store, o.namespace); err != nil {
		return err
	}
	logger := newLogger(std.err)
	server, err := newServer(serverConfig(o.host, p, store), logger)
	if err != nil {
		return fmt.Errorf("assemble Temporal: %w", err)
	}
	if err := server.Start(); err != nil {
		return fmt.Errorf("start Temporal: %w", err)
	}
	err = awaitReady(ctx, joinPort(o.host, p.frontend), o.namespace, logger)
	if err == nil {
		err = announce(o, joinPort(o.host, p.frontend), std)
	}
	if err == nil {
		<-ctx.Done()
	}
	if ctx.Err() != nil {
		err = nil // told to stop while it started: not a failure
	}
	return errors.Join(err, stop(server))
}

// newLogger writes what needs attention. At information level the server says
// hundreds of lines at each start.
func newLogger(w io.Writer) log.Logger {
	encoder := zapcore.NewJSONEncoder(log.DefaultZapEncoderConfig)
	core := zapcore.NewCore(encoder, zapcore.Lock(zapcore.AddSync(w)), zapcore.WarnLevel)
	return log.NewZapLogger(zap.New(core))
}

func newServer(cfg *config.Config, logger log.Logger) (temporal.Server, error) {
	return temporal.NewServer(
		temporal.WithConfig(cfg),
		temporal.ForServices(temporal.DefaultServices),
		temporal.WithStaticHosts(staticHosts(cfg)),
		temporal.WithLogger(logger),
		temporal.WithDynamicConfigClient(tuning()),
		temporal.WithAuthorizer(authorization.NewNoopAuthorizer()),
		temporal.WithClaimMapper(func(*config.Config) authorization.ClaimMapper {
			return authorization.NewNoopClaimMapper()
		}),
	)
}

// staticHosts spares the gossip ring, its four ports and its background work.
func staticHosts(cfg *config.Config) map[primitives.ServiceName]static.Hosts {
	hosts := make(map[primitives.ServiceName]static.Hosts, len(cfg.Services))
	for name, service := range cfg.Services {
		address := joinPort(service.RPC.BindOnIP, service.RPC.GRPCPort)
		hosts[primitives.ServiceName(name)] = static.SingleLocalHost(address)
	}
	return hosts
}

// serverConfig leaves out all that would open another port: metrics, profiling,
// HTTP, membership.
func serverConfig(host string, p ports, store *config.SQL) *config.Config {
	service := func(port int) config.Service {
		return config.Service{RPC: config.RPC{GRPCPort: port, BindOnIP: host}}
	}
	frontend := joinPort(host, p.frontend)
	return &config.Config{
		Persistence: config.Persistence{
			DefaultStore:     sqlite.PluginName,
			VisibilityStore:  sqlite.PluginName,
			NumHistoryShards: historyShards,
			DataStores:       map[string]config.DataStore{sqlite.PluginName: {SQL: store}},
		},
		ClusterMetadata: &cluster.Config{
			FailoverVersionIncrement: 10,
			MasterClusterName:        clusterName,
			CurrentClusterName:       clusterName,
			ClusterInformation: map[string]cluster.ClusterInformation{
				clusterName: {Enabled: true, InitialFailoverVersion: 1, RPCAddress: frontend},
			},
		},
		DCRedirectionPolicy: config.DCRedirectionPolicy{Policy: "noop"},
		Services: map[string]config.Service{
			string(primitives.FrontendService): service(p.frontend),
			string(primitives.HistoryService):  service(p.history),
			string(primitives.MatchingService): service(p.matching),
			string(primitives.WorkerService):   service(p.worker),
		},
		PublicClient:      config.PublicClient{HostPort: frontend},
		Archival:          noArchival(),
		NamespaceDefaults: noNamespaceArchival(),
	}
}

func noArchival() config.Archival {
	return config.Archival{
		History:    config.HistoryArchival{State: "disabled"},
		Visibility: config.VisibilityArchival{State: "disabled"},
	}
}

func noNamespaceArchival() config.NamespaceDefaults {
	return config.NamespaceDefaults{Archival: config.ArchivalNamespaceDefaults{
		History:    config.HistoryArchivalNamespaceDefaults{State: "disabled"},
		Visibility: config.VisibilityArchivalNamespaceDefaults{State: "disabled"},
	}}
}

// awaitReady returns when a client's first request would be answered. That the
// frontend listens is not enough: a question about a workflow that does not
// exist goes through the namespace, the shard and the store.
func awaitReady(ctx context.Context, address, namespace string, logger log.Logger) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	c, err := client.NewLazyClient(client.Options{HostPort: address, Namespace: namespace, Logger: log.NewSdkLogger(logger)})
	if err != nil {
		return fmt.Errorf("make client for %s: %w", address, err)
	}
	defer c.Close()
	ticker := time.NewTicker(readyInterval)
	defer ticker.Stop()
	for {
		_, err := c.DescribeWorkflowExecution(ctx, "tidegate-temporal-ready", "")
		if _, answered := errors.AsType[*serviceerror.NotFound](err); answered {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for Temporal to answer at %s: %w (last answer: %v)", address, context.Cause(ctx), err)
		case <-ticker.C:
		}
	}
}

// stop ends the services. It is bounded because a parent that restarts waits
// for this port and this file; the store is safe against any kill.
func stop(server temporal.Server) error {
	done := make(chan error, 1)
	go func() { done <- server.Stop() }()
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("stop Temporal: %w", err)
		}
		return nil
	case <-time.After(stopTimeout):
		return fmt.Errorf("stop Temporal: its services did not end within %s; the store is safe", stopTimeout)
	}
}
