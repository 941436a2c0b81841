package acl_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/acl"
)

// loaded gives a table with n stopped subscribers.
func loaded(b *testing.B, n int) *acl.Table {
	b.Helper()
	table := newRouter(b).open()
	observe(b, table)
	apply(b, table, add(provision.SetStopped, subscribers(0, n)...))
	return table
}

func BenchmarkKernelLoad100k(b *testing.B) {
	table := loaded(b, 0)
	fill, empty := add(provision.SetStopped, subscribers(0, 100_000)...), remove(provision.SetStopped, subscribers(0, 100_000)...)
	for b.Loop() {
		apply(b, table, fill)
		b.StopTimer()
		apply(b, table, empty)
		b.StartTimer()
	}
}

func BenchmarkKernelOneMoreTo100k(b *testing.B) {
	table := loaded(b, 100_000)
	one, none := add(provision.SetStopped, subscribers(200_000, 1)...), remove(provision.SetStopped, subscribers(200_000, 1)...)
	for b.Loop() {
		apply(b, table, one)
		b.StopTimer()
		apply(b, table, none)
		b.StartTimer()
	}
}

func BenchmarkKernelThousandMoreTo100k(b *testing.B) {
	table := loaded(b, 100_000)
	some, none := add(provision.SetStopped, subscribers(200_000, 1000)...), remove(provision.SetStopped, subscribers(200_000, 1000)...)
	for b.Loop() {
		apply(b, table, some)
		b.StopTimer()
		apply(b, table, none)
		b.StartTimer()
	}
}

func BenchmarkKernelObserve100k(b *testing.B) {
	table := loaded(b, 100_000)
	for b.Loop() {
		require.Len(b, observe(b, table).Stopped, 100_000)
	}
}

func BenchmarkKernelChanged(b *testing.B) {
	table := loaded(b, 100_000)
	observe(b, table)
	for b.Loop() {
		require.False(b, changed(b, table))
	}
}
