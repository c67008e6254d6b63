//! Member assignment: which member of an ensemble moves which row.

use mbrl_env::Rng;

use crate::{Draw, MemberRule, ModelError, dynamics::check_particles};

/// Which member moves a row of one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Assignment {
    /// All of them: the mean over members.
    All,
    /// All of them: a draw from the Gaussian with the mean and the variance of their mixture.
    Mixture,
    /// One for each particle, shared by all candidates: rows of a particle are contiguous.
    Particles(Vec<usize>),
    /// One for each row.
    Rows(Vec<usize>),
}

impl Assignment {
    /// Assigns `members` to `rows` = particles · candidates rows, as `draw` says.
    ///
    /// With several particles each of them gets a member: TS∞ gives particle p member ⌊p·E/P⌋, TS1 assigns afresh at each
    /// step in equal shares. All candidates of a particle share its member, which spares a gather and compares candidates on
    /// the same members; every candidate still meets every member. With one particle each row gets a member, in shares that
    /// differ by at most one (imagination from many states: MBPO).
    ///
    /// # Errors
    /// [`ModelError::Config`] where particles are neither 1 nor a multiple of the members.
    pub(crate) fn assign(draw: &Draw, members: usize, rows: usize) -> Result<Self, ModelError> {
        let particles = draw.propagation.particles;
        check_particles(particles, rows)?;
        let fault = |rule: String| {
            Err(ModelError::Config { field: "particles", value: particles.to_string(), rule: rule.into() })
        };
        // TS∞ keeps the assignment of the first step.
        let step = match draw.propagation.rule {
            MemberRule::Expectation if particles == 1 => return Ok(Self::All),
            MemberRule::Expectation => {
                return fault("1 with the rule `expectation`, which makes all particles the same".into());
            }
            MemberRule::Ds => return Ok(Self::Mixture),
            MemberRule::Ts1 => draw.step,
            MemberRule::TsInf => 0,
        };
        if members == 1 {
            return Ok(Self::Particles(vec![0; particles]));
        }
        let shuffled = |n: usize| {
            let mut rng = Rng::new(draw.key ^ (u64::from(step) << 32) ^ 0x7453_3131);
            rng.permutation(n).into_iter().map(|place| place * members / n).collect::<Vec<_>>()
        };
        match particles {
            1 => Ok(Self::Rows(shuffled(rows))),
            p if !p.is_multiple_of(members) => {
                fault(format!("1, or a multiple of {members} (the members that roll-outs draw from)"))
            }
            p => Ok(Self::Particles(match draw.propagation.rule {
                MemberRule::TsInf => (0..p).map(|i| i * members / p).collect(),
                _ => shuffled(p),
            })),
        }
    }

    /// Particles or rows in the order of their members, padded so that each member has as many, and where each then stands;
    /// `None` where they are in that order already.
    pub(crate) fn order(assigned: &[usize], members: usize) -> Option<(Vec<i32>, Vec<i32>)> {
        let mut shares = vec![Vec::new(); members];
        for (i, &member) in assigned.iter().enumerate() {
            shares[member].push(i as i32);
        }
        let longest = shares.iter().map(Vec::len).max().unwrap_or(0);
        let mut order = Vec::with_capacity(members * longest);
        let mut place = vec![0i32; assigned.len()];
        for (m, share) in shares.iter().enumerate() {
            for (i, &from) in share.iter().enumerate() {
                place[from as usize] = (m * longest + i) as i32;
            }
            order.extend(share);
            // Padding repeats the first; nothing reads it.
            order.resize((m + 1) * longest, 0);
        }
        let in_place = order.len() == assigned.len() && order.iter().enumerate().all(|(i, &from)| i as i32 == from);
        (!in_place).then_some((order, place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Propagation;

    fn assign(rule: MemberRule, particles: usize, step: u32, rows: usize) -> Assignment {
        let propagation = Propagation { rule, noise: true, particles };
        Assignment::assign(&Draw { step, ..Draw::new(propagation, 9) }, 5, rows).unwrap()
    }

    #[test]
    fn every_candidate_meets_every_member_equally_often() {
        // Were `row % members` used on particle-major rows, one candidate would meet one member only.
        for rule in [MemberRule::TsInf, MemberRule::Ts1] {
            for step in 0..4 {
                let Assignment::Particles(assigned) = assign(rule, 20, step, 20 * 400) else { panic!() };
                for member in 0..5 {
                    assert_eq!(assigned.iter().filter(|&&m| m == member).count(), 4);
                }
            }
        }
    }

    #[test]
    fn ts_infinity_keeps_members_and_ts1_assigns_afresh() {
        assert_eq!(assign(MemberRule::TsInf, 10, 0, 10), Assignment::Particles(vec![0, 0, 1, 1, 2, 2, 3, 3, 4, 4]));
        assert_eq!(assign(MemberRule::TsInf, 10, 3, 10), assign(MemberRule::TsInf, 10, 0, 10));
        assert_ne!(assign(MemberRule::Ts1, 20, 1, 20), assign(MemberRule::Ts1, 20, 0, 20));
        assert_eq!(assign(MemberRule::TsInf, 1, 0, 103), assign(MemberRule::TsInf, 1, 7, 103));
        assert_ne!(assign(MemberRule::Ts1, 1, 0, 103), assign(MemberRule::Ts1, 1, 7, 103));
    }

    #[test]
    fn rows_of_single_particles_are_assigned_in_equal_shares() {
        let Assignment::Rows(assigned) = assign(MemberRule::Ts1, 1, 2, 103) else { panic!() };
        for member in 0..5 {
            assert!((20..=21).contains(&assigned.iter().filter(|&&m| m == member).count()));
        }
    }

    #[test]
    fn order_and_place_undo_each_other() {
        for assignment in [assign(MemberRule::Ts1, 1, 0, 103), assign(MemberRule::Ts1, 10, 1, 70)] {
            let (Assignment::Rows(assigned) | Assignment::Particles(assigned)) = assignment else { panic!() };
            let (order, place) = Assignment::order(&assigned, 5).unwrap();
            let share = order.len() / 5;
            assert!((0..assigned.len()).all(|i| order[place[i] as usize] as usize == i));
            assert!((0..assigned.len()).all(|i| place[i] as usize / share == assigned[i]));
        }
        let Assignment::Particles(assigned) = assign(MemberRule::TsInf, 10, 0, 70) else { panic!() };
        assert!(Assignment::order(&assigned, 5).is_none());
    }

    #[test]
    fn impossible_particles_are_refused() {
        let draw = |rule, particles| Draw::new(Propagation { rule, noise: false, particles }, 0);
        assert!(Assignment::assign(&draw(MemberRule::TsInf, 0), 5, 10).is_err());
        assert!(Assignment::assign(&draw(MemberRule::TsInf, 7), 5, 70).is_err());
        assert!(Assignment::assign(&draw(MemberRule::Ts1, 5), 5, 12).is_err());
        assert!(Assignment::assign(&draw(MemberRule::Expectation, 2), 5, 10).is_err());
    }
}
