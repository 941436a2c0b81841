package main

import (
	"context"

	"github.com/usher-agent/usher/config"
	"github.com/usher-agent/usher/console"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/erp"
	"github.com/usher-agent/usher/provision/syncer"
)

// FetchStates implements syncer.StateFetcher.
func (l *liveERP) FetchStates(ctx context.Context, prev *provision.Snapshot) (syncer.StatesAnswer, error) {
	return l.p.Load().FetchStates(ctx, prev)
}

// FetchCustomers implements syncer.CustomerFetcher.
func (l *liveERP) FetchCustomers(ctx context.Context, ids []provision.SubscriberID, prev *provision.Snapshot) (syncer.StatesAnswer, error) {
	return l.p.Load().FetchCustomers(ctx, ids, prev)
}

// Moved implements syncer.CustomerFetcher.
func (l *liveERP) Moved(ctx context.Context, ids []provision.SubscriberID, prev *provision.Snapshot) (bool, error) {
	return l.p.Load().Moved(ctx, ids, prev)
}

// memoryFor gives what is known of the ERP, and begins anew for another one.
func (l *liveERP) memoryFor(url string) *erp.Memory {
	if l.memory == nil || l.url != url {
		l.memory, l.url = erp.NewMemory(), url
	}
	return l.memory
}

// openHooks makes the endpoint of hints, if the configuration has one.
func (a *agent) openHooks(cfg *config.Config) {
	if cfg.Hooks.Listen.IsValid() {
		a.hooks = console.NewHooks(cfg.Hooks, a.syncer.Hint, a.metrics.Hint, a.log)
	}
}

// serveHooks may fail without taking DHCP with it: it tries again by itself.
func (a *agent) serveHooks(ctx context.Context) error {
	return console.ServeHTTP(ctx, a.cfg.Load().Hooks.Listen, a.hooks, a.log, nil)
}
