package acl

import (
	"context"

	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/acl/ruleset"
)

// Inspector is a Reader beside an agent: it knows the policy of now.
type Inspector struct {
	*Reader
	// Policy returns what the rules follow from now.
	Policy func() ruleset.Policy
	// Want returns the ACL that a dry run would bring about; nil: it is no dry run.
	Want func() (access.ACL, error)
}

// Read is Reader.Read with the policy of now.
func (i Inspector) Read(ctx context.Context) (View, error) { return i.Reader.Read(ctx, i.Policy()) }

// AsNFT is Reader.AsNFT with the policy of now. Of a dry run it is what would be there.
func (i Inspector) AsNFT(ctx context.Context) (string, error) {
	if i.Want == nil {
		return i.Reader.AsNFT(ctx, i.Policy())
	}
	want, err := i.Want()
	if err != nil {
		return "", err
	}
	return ruleset.Listing{Policy: i.Policy(), Have: want}.String(), nil
}

// Passed is Reader.Passed with the policy of now.
func (i Inspector) Passed(ctx context.Context) ([]Passed, error) {
	return i.Reader.Passed(ctx, i.Policy())
}
