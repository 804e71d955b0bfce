-- rests: which members of a set may be deleted with their records. After damage a job may stand in a set of ended jobs
-- and live elsewhere; its record decides. `states`: the letters of records that belong in the set. A record that this
-- version cannot read belongs where it was set aside. Needs `record`.
-- Returns the ids that may go, those that stay, since a job is there that is not of this set, and the dedup digests of
-- those that go with their owners.
-- Example: of the dead set a `x`, b `p` and c without a record, a and c may go; b runs.
local function at_rest(states, ids, records)
  local rest, stay, digests, owners = {}, {}, {}, {}
  for i = 1, #ids do
    local record = records[i]
    local known = record and readable(record)
    local state = known and string.match(record, '^.([spdxc])')
    if state and not string.find(states, state, 1, true) then
      stay[#stay + 1] = ids[i]
    else
      rest[#rest + 1] = ids[i]
      local digest = known and fields(record)
      if digest then
        digests[#digests + 1] = digest
        owners[#owners + 1] = ids[i]
      end
    end
  end
  return rest, stay, digests, owners
end
