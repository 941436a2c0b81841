package acl

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Maintenance is the switch of a Table with the reason for which it was thrown.
// Its methods are safe for concurrent use.
type Maintenance struct {
	table *Table
	log   *slog.Logger

	mu     sync.Mutex // guards what follows
	until  time.Time
	reason string
}

// NewMaintenance makes the switch of a table.
func NewMaintenance(t *Table, log *slog.Logger) *Maintenance { return &Maintenance{table: t, log: log} }

// OpenFor is Table.OpenFor for a reason.
func (m *Maintenance) OpenFor(ctx context.Context, d time.Duration, reason string) (time.Time, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	until, err := m.table.OpenFor(ctx, d)
	if err == nil {
		m.until, m.reason = until, reason
		m.log.Warn("an operator lets everybody through", "until", until.UTC(), "reason", reason)
	}
	return until, err
}

// Shut is Table.Shut.
func (m *Maintenance) Shut(ctx context.Context) error { return m.table.Shut(ctx) }

// Reason returns that of the maintenance which lasts until then, as far as is known.
func (m *Maintenance) Reason(until time.Time) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	// What is left in the kernel is counted in its ticks: the end moves a little when it is read back.
	if until.Sub(m.until).Abs() < time.Second {
		return m.reason
	}
	return ""
}
