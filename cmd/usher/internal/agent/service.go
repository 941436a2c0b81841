package agent

import (
	"context"
	"errors"
	"os"
	"syscall"
)

// Service is the manager of services that has started the agent and wants to know.
type Service interface {
	Ready()
	Reloading() // Ready follows
	Stopping()
	// Kept returns the descriptors that it has kept of an earlier process, with their names; they are the caller's. It is
	// called once.
	Kept() []*os.File
	// Keep has it keep a socket under a name beyond the end of this process, until Drop or until the service is stopped for
	// good. It is errors.ErrUnsupported if nobody can.
	Keep(name string, c syscall.RawConn) error
	// Drop has it close what it keeps under a name, and waits until it has.
	Drop(name string) error
	// Watch tells it again and again that the agent works, as long as alive says
	// so within the context's time. It returns when ctx ends, or at once if that is not asked for.
	Watch(ctx context.Context, alive func(context.Context) error)
}

// noService is that nobody wants to know.
type noService struct{}

func (noService) Ready()                                             {}
func (noService) Reloading()                                         {}
func (noService) Stopping()                                          {}
func (noService) Kept() []*os.File                                   { return nil }
func (noService) Keep(string, syscall.RawConn) error                 { return errors.ErrUnsupported }
func (noService) Drop(string) error                                  { return nil }
func (noService) Watch(context.Context, func(context.Context) error) {}
