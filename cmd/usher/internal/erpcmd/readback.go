package erpcmd

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/usher-agent/usher/cmd/usher/internal/cli"
	"github.com/usher-agent/usher/userside"
)

const (
	// readBackFor is how long a card is looked at when the answer of a change of state was lost: an ERP may work on it for
	// long after nobody listens any more.
	readBackFor = 30 * time.Second
	// The waits between two looks double from the first to the longest.
	readBackFirst   = 500 * time.Millisecond
	readBackLongest = 4 * time.Second
)

// readBack looks at the card of the customer whose state was to be changed, where nobody knows whether the ERP did it. It
// returns nil if the card has the state, else told with what was seen. Other actions have no card that tells.
func (call *actionCall) readBack(client *userside.Client, a userside.Action, args url.Values, told error) error {
	if !changesState(a) || !errors.Is(told, cli.ErrUncertain) {
		return told
	}
	id, err := strconv.ParseInt(args.Get("customer_id"), 10, 64)
	want, werr := strconv.ParseInt(args.Get("state_id"), 10, 64)
	if err != nil || werr != nil {
		return told
	}
	ctx, seen := call.cmd.Context(), "the customer's card could not be read"
	until := time.Now().Add(readBackFor)
	for wait := readBackFirst; ; wait = min(2*wait, readBackLongest) {
		c, err := client.Customer(ctx, id)
		switch {
		case err == nil && c.State.Set && c.State.Value == want:
			return nil
		case err == nil:
			seen = "the customer's card does not show it"
		case errors.Is(err, userside.ErrPermission), errors.Is(err, userside.ErrNotFound), errors.Is(err, userside.ErrUnsupported):
			return seenSince(told, seen) // it will not be read later either
		}
		if time.Now().Add(wait).After(until) {
			return seenSince(told, seen)
		}
		select {
		case <-ctx.Done():
			return told
		case <-time.After(wait):
		}
	}
}

// seenSince adds what was seen after a change of which nobody knows whether it was made.
func seenSince(told error, seen string) error {
	text := strings.Replace(told.Error(), cli.ErrUncertain.Error(), cli.ErrUncertain.Error()+"; "+seen, 1)
	return &advised{text, told}
}

// printFound says that a change was made though the answer to it did not say so.
func (call *actionCall) printFound(a userside.Action, args url.Values, told error) error {
	why, _, _ := strings.Cut(told.Error(), "\n")
	if _, err := fmt.Fprintf(call.cmd.ErrOrStderr(), "note: the ERP has the state, though its answer did not say so: %s\n", why); err != nil || call.raw {
		return err
	}
	return call.printDone(a, args)
}

func changesState(a userside.Action) bool {
	return a.Category == "customer" && a.Name == "state_change"
}
