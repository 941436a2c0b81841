package agent

import "context"

// Service is the manager of services that has started the agent and wants to know.
type Service interface {
	Ready()
	Reloading() // Ready follows
	Stopping()
	// Watch tells it again and again that the agent works, as long as alive says
	// so within the context's time. It returns when ctx ends, or at once if that is not asked for.
	Watch(ctx context.Context, alive func(context.Context) error)
}

// noService is that nobody wants to know.
type noService struct{}

func (noService) Ready()                                             {}
func (noService) Reloading()                                         {}
func (noService) Stopping()                                          {}
func (noService) Watch(context.Context, func(context.Context) error) {}
