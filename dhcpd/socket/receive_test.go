package socket

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// brokenConn fails every read, as a socket does while memory is short.
type brokenConn struct{}

func (brokenConn) Control(func(uintptr)) error    { return nil }
func (brokenConn) Write(func(uintptr) bool) error { return nil }
func (brokenConn) Read(func(uintptr) bool) error  { return syscall.ENOMEM }

func TestReaderTellsOfErrors(t *testing.T) {
	n, err := (&Sockets{raw: brokenConn{}}).NewReader().Read()
	require.ErrorIs(t, err, syscall.ENOMEM)
	require.Zero(t, n)
}
