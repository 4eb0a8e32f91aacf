// Package access knows who is calling and what they may do.
package access
