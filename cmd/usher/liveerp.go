package main

import (
	"context"
	"net/netip"
	"sync/atomic"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/erp"
)

// liveERP is the ERP as configured now: a reload exchanges it whole.
type liveERP struct {
	p      atomic.Pointer[erp.Fetcher]
	memory *erp.Memory // handed from one Fetcher to the next for the same ERP
	url    string      // of memory
}

// Fetch implements syncer.Fetcher.
func (l *liveERP) Fetch(ctx context.Context, prev *provision.Snapshot) (provision.Input, error) {
	return l.p.Load().Fetch(ctx, prev)
}

// SetMAC implements outbox.Sender.
func (l *liveERP) SetMAC(ctx context.Context, ip netip.Addr, mac provision.MAC) error {
	return l.p.Load().SetMAC(ctx, ip, mac)
}

// ChangeState sets a customer's state in the ERP.
func (l *liveERP) ChangeState(ctx context.Context, id provision.SubscriberID, st provision.State) error {
	return l.p.Load().ChangeState(ctx, id, st)
}
