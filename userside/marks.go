package userside

import "context"

// change sends an action whose answer is the marker only.
func (c *Client) change(ctx context.Context, act action, args arguments) error {
	_, err := c.call(ctx, act, args.values(), sink{})
	return err
}

// AddMark calls customer mark_add. A hook inside the ERP may take the call over
// and answer in its own words; what is not OK is ErrRefused with them.
func (c *Client) AddMark(ctx context.Context, customer, mark int64) error {
	return c.change(ctx, actMarkAdd, arguments{}.id("customer_id", customer).id("mark_id", mark))
}

// DeleteMark calls customer mark_delete.
func (c *Client) DeleteMark(ctx context.Context, customer, mark int64) error {
	return c.change(ctx, actMarkDelete, arguments{}.id("customer_id", customer).id("mark_id", mark))
}
