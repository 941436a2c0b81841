package agent

import (
	"context"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/config"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
	"github.com/usher-agent/usher/provision/outbox"
	"github.com/usher-agent/usher/provision/provisiontest"
)

// takesAll is an ERP that takes every report.
type takesAll struct{}

func (takesAll) SetMAC(context.Context, netip.Addr, provision.MAC) error { return nil }

// Where no MAC can be seen here, a new one is no surprise.
func TestNoMACIsOwnWithoutDHCP(t *testing.T) {
	for name, tt := range map[string]struct {
		enabled, dryRun, knows bool
	}{"DHCP": {true, false, true}, "without DHCP": {false, false, false}, "dry run": {true, true, false}} {
		t.Run(name, func(t *testing.T) {
			cfg := &config.Config{}
			cfg.DHCP.Enabled = tt.enabled
			a := &Agent{dryRun: tt.dryRun}
			assert.Equal(t, tt.knows, a.syncOptions(cfg).OwnMAC != nil)
		})
	}
}

// What a client has an address with, what was sent to the ERP since, and what was reported of an address without a lease is no surprise to the guard.
func TestOwnMACs(t *testing.T) {
	quiet := slog.New(slog.DiscardHandler)
	store, err := lease.OpenStore(t.Context(), t.TempDir(), quiet)
	require.NoError(t, err)
	defer store.Close()
	a := &Agent{}
	a.leases, err = lease.Open(store)
	require.NoError(t, err)
	a.outbox, err = outbox.Open(store, outbox.Options{Enabled: true, Changes: func(provision.MACReport) bool { return false }}, takesAll{}, nil, quiet)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.outbox.Run(ctx) }()
	defer func() { cancel(); require.NoError(t, <-done) }()

	mac := func(i byte) provision.MAC { return provision.MAC{0, 0, 0x5e, 0, 0x53, i} }
	leased, static := provisiontest.IP(1), provisiontest.IP(2)
	now := time.Now()
	rec := lease.Record{IP: leased, MAC: mac(1), Subscriber: 1, State: lease.StateBound, Start: now, Expires: now.Add(time.Hour)}
	rec.ERP.Direct = lease.ERPMAC{MAC: mac(2), At: now.UnixNano()}
	a.leases.Store(rec)
	a.leases.Sending(leased, mac(3))
	require.NoError(t, a.outbox.Put(provision.MACReport{IP: static, MAC: mac(4), Subscriber: 2, At: now}))
	require.Eventually(t, func() bool { return a.outbox.HasTold(static, mac(4)) }, time.Minute, 5*time.Millisecond)
	for i := range byte(6) {
		assert.Equal(t, i >= 1 && i <= 3, a.ownMAC(leased, mac(i)), "%d", i)
		assert.Equal(t, i == 4, a.ownMAC(static, mac(i)), "%d", i)
		assert.Equal(t, i == 1, a.ownMAC(netip.Addr{}, mac(i)), "%d: rows for pools have no address", i)
	}
}
