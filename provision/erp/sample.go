package erp

import (
	"context"
	"errors"
	"maps"
	"net/url"
	"slices"
	"strconv"

	"github.com/usher-agent/usher/userside"
)

// SampleOptions say how much Sample reads.
type SampleOptions struct {
	Fetch     Options
	Both      bool              // read the direct and the composed source; else the one that the agent would use
	Customers int               // customers to read one by one and as a list; 20
	Progress  func(what string) // called before each step; nil: nobody
}

// SampleStep is one step of Sample.
type SampleStep struct {
	What string
	Err  error // nil: it went well
}

// maxSingles and maxSampleChains bound the calls for one customer each.
const (
	maxSingles      = 3
	maxSampleChains = 10
)

// Sample makes the reads that the agent makes, and a few more, so that a
// recording of them is a whole case. A step that fails does not end it: what a
// server refuses belongs to the case. The error says that the server did not
// answer at all.
func Sample(ctx context.Context, client *userside.Client, o SampleOptions) ([]SampleStep, error) {
	if o.Customers == 0 {
		o.Customers = 20
	}
	s := &sampler{opts: o, client: client}
	if err := s.step(ctx, "version", func() error { _, err := client.SystemInfo(ctx); return err }); errors.Is(err, userside.ErrUnavailable) {
		return s.steps, err
	}
	modes := []Mode{o.Fetch.Bindings}
	if o.Both {
		modes = []Mode{ModeDirect, ModeComposed}
	}
	ids := map[int64]bool{}
	for _, mode := range modes {
		fo := o.Fetch
		fo.Bindings = mode
		f, err := New(client, fo)
		if err != nil {
			return nil, err
		}
		_ = s.step(ctx, "everything that the agent reads", func() error {
			in, err := f.Fetch(ctx, nil)
			for _, sub := range in.Subscribers {
				ids[int64(sub.ID)] = true
			}
			return err
		})
	}
	s.extras(ctx, spread(slices.Sorted(maps.Keys(ids)), o.Customers))
	return s.steps, ctx.Err()
}

type sampler struct {
	opts   SampleOptions
	client *userside.Client
	steps  []SampleStep
}

func (s *sampler) step(ctx context.Context, what string, f func() error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if s.opts.Progress != nil {
		s.opts.Progress(what)
	}
	err := f()
	s.steps = append(s.steps, SampleStep{what, err})
	return err
}

// extras are reads beside those of a fetch.
func (s *sampler) extras(ctx context.Context, ids []int64) {
	c := s.client
	_ = s.step(ctx, "bindings", func() error { _, err := c.CustomerBindings(ctx); return err })
	_ = s.step(ctx, "cabling of all customers", func() error {
		links, err := c.CustomerCommutation(ctx)
		if err != nil {
			return err
		}
		// Customers behind a cross-connect or a splice are the interesting ones.
		asked := 0
		for _, l := range links.Customers {
			if len(onlySwitches(l.Links)) == 0 && asked < maxSampleChains {
				asked++
				if _, err := c.CustomerChain(ctx, l.Customer); err != nil {
					return err
				}
			}
		}
		return nil
	})
	_ = s.step(ctx, "switches", func() error { _, err := c.Devices(ctx, userside.DeviceFilter{}); return err })
	for _, id := range ids[:min(len(ids), maxSingles)] {
		_ = s.step(ctx, "one customer", func() error { _, err := c.Customers(ctx, []int64{id}); return err })
		_ = s.step(ctx, "cabling of one customer", func() error { _, err := c.CustomerChain(ctx, id); return err })
	}
	if len(ids) > 1 {
		_ = s.step(ctx, "several customers", func() error { _, err := c.Customers(ctx, ids); return err })
	}
	_ = s.step(ctx, "states", func() error { return c.Try(ctx, "module", "get_user_state_list", nil, false) })
	if len(ids) > 0 {
		_ = s.step(ctx, "one customer of the universal api", func() error {
			return c.Try(ctx, "module", "get_user_list", url.Values{"customer_id": {strconv.FormatInt(ids[0], 10)}}, false)
		})
	}
}

// spread picks n of the ids, from all over the list.
func spread(ids []int64, n int) []int64 {
	if len(ids) <= n {
		return ids
	}
	out := make([]int64, 0, n)
	for i := range n {
		out = append(out, ids[i*len(ids)/n])
	}
	return out
}
